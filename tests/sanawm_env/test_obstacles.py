"""Distances to what a room holds, and sliding along it, against places worked out by hand."""

import numpy as np
import pytest

from sanawm_env.obstacles import RADIUS, STRIDE, Obstacles, segments
from sanawm_env.scenes import make_scene


@pytest.fixture
def room() -> Obstacles:
    """4 x 5 x 3 m with a box of 1 m about (2, 2, 0.5) and a column of 0.2 m radius at (1, 4)."""
    return Obstacles(
        size=np.array([4.0, 5.0, 3.0]),
        centre=np.array([[2.0, 2.0, 0.5], [1.0, 4.0, 1.5]]),
        half=np.array([[0.5, 0.5, 0.5], [0.2, 0.2, 1.5]]),
        is_round=np.array([False, True]),
    )


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ((2.0, 1.0, 0.5), 0.5),  # before the box
        ((2.0, 2.0, 1.4), 0.4),  # above it
        ((1.2, 1.1, 0.5), 0.5),  # off its edge: 0.3, 0.4
        ((2.0, 2.0, 0.4), -0.4),  # in it
        ((1.3, 4.4, 1.5), 0.3),  # off the column, whose bounding box would be nearer: 0.3, 0.4
        ((0.1, 2.5, 1.5), 0.1),
        ((3.0, 3.5, 2.8), 0.2),
        ((-0.5, 2.5, 1.5), -0.5),  # behind the wall
    ],
)
def test_clearance(room: Obstacles, point: tuple[float, float, float], expected: float) -> None:
    assert room.clearance(np.array([point]))[0] == pytest.approx(expected)


def test_nothing_thin_is_jumped_over(room: Obstacles) -> None:
    path = np.array([[0.5, 2.0, 0.5], [3.5, 2.0, 0.5]])  # both ends are free, the box lies between
    assert (room.clearance(path) > RADIUS).all()
    assert room.touched(path)
    assert not room.touched(np.array([[0.5, 2.0, 2.0], [3.5, 2.0, 2.0]]))
    steps = np.diff(np.concatenate([path[:1], segments(path)[0]]), axis=0)
    assert np.linalg.norm(steps, axis=1).max() <= STRIDE + 1e-12
    np.testing.assert_allclose(segments(path)[0][-1], path[-1])


def test_a_camera_stops_at_a_wall_and_slides_along_it(room: Obstacles) -> None:
    straight, touched = room.slide(np.array([[1.0, 1.0, 1.5], [-1.0, 1.0, 1.5]]))
    assert touched
    np.testing.assert_allclose(straight[-1], [RADIUS, 1.0, 1.5], atol=1e-4)
    slanted, _ = room.slide(np.array([[1.0, 1.0, 1.5], [0.0, 2.0, 1.5], [-1.0, 3.0, 1.5]]))
    np.testing.assert_allclose(slanted[-1], [RADIUS, 3.0, 1.5], atol=1e-3)  # along the wall as fast as it was asked
    free, touched = room.slide(np.array([[1.0, 1.0, 1.5], [3.0, 1.0, 1.5]]))
    assert not touched
    np.testing.assert_allclose(free[-1], [3.0, 1.0, 1.5])


def test_it_slides_round_a_column_and_out_of_what_it_began_in(room: Obstacles) -> None:
    path, touched = room.slide(np.array([[0.4, 3.95, 1.5], [1.8, 3.95, 1.5]]))
    assert touched
    assert (room.clearance(path) >= RADIUS - 1e-6).all()
    out, _ = room.slide(np.array([[2.0, 2.0, 0.8], [2.0, 2.0, 1.5]]))
    np.testing.assert_allclose(out[-1], [2.0, 2.0, 1.5])
    deeper, _ = room.slide(np.array([[2.0, 2.0, 0.95], [2.0, 2.0, 0.6]]))
    assert deeper[-1][2] >= 0.95 - 1e-6


def test_random_flights_never_enter_anything() -> None:
    rng = np.random.default_rng(0)
    for seed in range(3):
        room = Obstacles.of(make_scene(seed))
        places = rng.uniform(0, room.size, (200, 3))
        start = places[room.clearance(places) > RADIUS][0]
        path, touched = room.slide(start + np.concatenate([np.zeros((1, 3)), rng.normal(0, 0.5, (40, 3)).cumsum(0)]))
        assert touched
        assert (room.clearance(path) >= RADIUS - 1e-6).all()
