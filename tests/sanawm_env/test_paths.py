"""Camera paths: the twist exponential, clearance, and that no path leaves SE(3), its limits or the free space."""

import numpy as np
import pytest

from sanawm_env.paths import (
    MARGIN,
    MAX_TWIST,
    STEP,
    TEST_KINDS,
    TRAIN_KINDS,
    Space,
    allowed,
    elevation_and_roll,
    integrate,
    look,
    plan,
    propose,
    sample_start,
    scripted,
)
from world_model.errors import InputError

FPS = 16.0
ROOM = Space(
    lo=np.zeros(3),
    hi=np.array([6.0, 5.0, 2.8]),
    boxes=np.array([[[2.0, 2.0, 0.0], [3.0, 2.6, 1.0]], [[4.5, 0.0, 0.0], [5.5, 0.4, 2.0]]]),
)
GOAL = np.array([4.2, 3.6, 0.3])


def test_signs_of_a_twist_in_camera_axes() -> None:
    start = look(np.array([3.0, 1.0, 1.5]), yaw=np.pi / 2, elevation=0.0)
    np.testing.assert_allclose(start[:3, 0], [1, 0, 0], atol=1e-12)  # facing +y, right is +x
    np.testing.assert_allclose(start[:3, 1], [0, 0, -1], atol=1e-12)
    ahead = integrate(start, np.array([[0, 0, 0.8, 0, 0, 0.0]]), FPS)[1]
    np.testing.assert_allclose(ahead[:3, 3], [3, 1.05, 1.5], atol=1e-12)
    right = integrate(start, np.tile([0, 0, 0, 0, np.pi / 2, 0], (16, 1)), FPS)[16]
    np.testing.assert_allclose(right[:3, 2], [1, 0, 0], atol=1e-12)
    up = integrate(start, np.tile([0, 0, 0, np.radians(30), 0, 0], (16, 1)), FPS)[16]
    assert np.degrees(elevation_and_roll(up[None])[0]) == pytest.approx(30)


def test_clearance_is_the_distance_to_the_nearest_surface() -> None:
    points = np.array([[1.0, 2.3, 0.5], [2.5, 2.3, 1.5], [3.3, 3.0, 1.4], [2.5, 2.3, 0.9], [3.0, 4.9, 1.4]])
    expected = [0.5, 0.5, np.sqrt(0.09 + 0.16 + 0.16), -0.1, 0.1]
    np.testing.assert_allclose(ROOM.clearance(points), expected, atol=1e-12)
    empty = Space(lo=ROOM.lo, hi=ROOM.hi, boxes=np.zeros((0, 2, 3)))
    np.testing.assert_allclose(empty.clearance(points[:1]), [0.5])


def test_sees_stops_at_boxes_but_not_at_the_one_that_holds_the_end() -> None:
    assert not ROOM.sees(np.array([1.0, 2.3, 0.5]), np.array([5.0, 2.3, 0.5]))
    assert ROOM.sees(np.array([1.0, 2.3, 1.5]), np.array([5.0, 2.3, 1.5]))
    assert ROOM.sees(np.array([1.0, 2.3, 0.5]), np.array([2.5, 2.3, 0.5]))


@pytest.mark.parametrize("kind", TRAIN_KINDS)
def test_planned_paths_are_free_rigid_and_reproducible(kind: str) -> None:
    for seed in range(2):
        rng = np.random.default_rng(seed)
        start = sample_start(ROOM, GOAL, np.radians(70), rng)
        assert start is not None
        twists = plan(ROOM, start, kind, 97, FPS, rng)
        assert twists.shape == (96, 6)
        assert (np.abs(twists) <= MAX_TWIST + 1e-12).all()
        poses = integrate(start, twists, FPS)
        assert allowed(ROOM, poses)
        assert ROOM.clearance(poses[:, :3, 3]).min() >= MARGIN
        rotation = poses[:, :3, :3]
        np.testing.assert_allclose(
            rotation @ rotation.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (97, 3, 3)), atol=1e-14
        )
        np.testing.assert_allclose(np.linalg.det(rotation), 1)
        again = np.random.default_rng(seed)
        np.testing.assert_array_equal(start, sample_start(ROOM, GOAL, np.radians(70), again))
        np.testing.assert_array_equal(twists, plan(ROOM, start, kind, 97, FPS, again))


def test_a_return_path_ends_where_it_began_and_moves_in_between() -> None:
    rng = np.random.default_rng(5)
    start = sample_start(ROOM, GOAL, np.radians(70), rng)
    poses = integrate(start, plan(ROOM, start, "return", 97, FPS, rng), FPS)
    np.testing.assert_allclose(poses[96], poses[0], atol=1e-9)
    np.testing.assert_allclose(poses[60], poses[36], atol=1e-9)
    assert np.abs(poses[48] - poses[0]).max() > 0.1


def test_commands_of_an_unsmoothed_path_change_on_the_agents_grid() -> None:
    start = look(np.array([1.5, 4.0, 1.4]), yaw=-0.5, elevation=0.0)
    for seed in range(12):
        twists = plan(ROOM, start, "jitter", 97, FPS, np.random.default_rng(seed))
        changes = np.flatnonzero((np.diff(twists, axis=0) != 0).any(1)) + 1
        assert len(changes) > 4
        assert (changes % STEP == 0).all()


def test_yaw_paths_are_slow_and_fast_and_sometimes_sustained() -> None:
    start = look(np.array([1.5, 4.0, 1.4]), yaw=-0.5, elevation=0.0)
    twists = [plan(ROOM, start, "yaw", 97, FPS, np.random.default_rng(seed)) for seed in range(40)]
    speeds = np.degrees(np.abs(np.concatenate(twists)[:, 4]))
    assert speeds.max() > 40
    assert (speeds < 15).mean() > 0.15
    turned = [abs(np.degrees(t[:, 4].sum() / FPS)) for t in twists]
    assert max(turned) > 120
    assert not np.concatenate(twists)[:, [0, 1, 2, 3, 5]].any()


@pytest.mark.parametrize("kind", TEST_KINDS[:-1])
def test_scripted_paths_do_what_their_name_says(kind: str) -> None:
    start = look(np.array([1.0, 4.0, 1.4]), yaw=-0.2, elevation=0.0)
    poses = integrate(start, scripted(kind, 65, FPS, np.random.default_rng(1)), FPS)
    relative = np.linalg.inv(start) @ poses
    turned = np.degrees(np.arccos(np.clip((np.trace(relative[16, :3, :3]) - 1) / 2, -1, 1)))
    moved = relative[16, :3, 3]
    expected_turn = {"yaw": 30, "pitch": 30}.get(kind, 0)
    assert turned == pytest.approx(expected_turn, abs=1e-6)
    expected = {"forward": [0, 0, 0.6], "strafe": [0.4, 0, 0]}.get(kind, [0, 0, 0])
    np.testing.assert_allclose(np.abs(moved), expected, atol=1e-9)
    assert np.degrees(np.abs(elevation_and_roll(poses)[0])).max() <= 35


def test_starts_face_into_the_room_with_the_goal_in_view() -> None:
    rng = np.random.default_rng(0)
    seen = 0
    for _ in range(60):
        start = sample_start(ROOM, GOAL, np.radians(70), rng)
        assert start is not None
        assert ROOM.clearance(start[None, :3, 3])[0] >= MARGIN
        x, y, z = (np.linalg.inv(start) @ [*GOAL, 1])[:3]
        seen += z > 0 and max(abs(x), abs(y)) / z < np.tan(np.radians(35))
    assert seen >= 50


def test_a_room_without_free_space_has_no_start() -> None:
    full = Space(lo=ROOM.lo, hi=ROOM.hi, boxes=np.stack([ROOM.lo, ROOM.hi])[None])
    assert sample_start(full, GOAL, 1.2, np.random.default_rng(0)) is None


def test_unknown_kinds_are_named() -> None:
    with pytest.raises(InputError, match=r"expected one of .*'yaw'.*, got 'fly'"):
        propose("fly", np.random.default_rng(0))
    with pytest.raises(InputError, match="got 'random'"):
        scripted("random", 65, FPS, np.random.default_rng(0))
