"""Track path: pose k after step k."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sanawm_env import se3
from sanawm_env.actions import twist_between
from sanawm_env.tasks import TrackPath
from world_model.errors import InputError

PATH = se3.integrate(np.eye(4), np.tile([0, 0, 0.2, 0, 0.1, 0], (3, 1)), 1.0)


def follow(at: Callable, shift: float, turn: float) -> list[Any]:
    """Episodes that fly along PATH, beside it by metres and radians."""
    beside = se3.exp(np.array([0, 0, 0, 0, turn, 0]))
    beside[0, 3] = shift
    start = at(0, 0, 0, (0, 0, 0), aims={"path": PATH})
    return [start, *(dataclasses.replace(start, pose=pose @ beside, aims={}) for pose in PATH)]


def test_on_the_path_every_step_pays_one(at: Callable, judge: Callable) -> None:
    verdicts = judge(TrackPath(), follow(at, 0, 0))
    assert [v.reward for v in verdicts[1:]] == pytest.approx([1, 1, 1])
    assert [v.terminated for v in verdicts] == [False, False, False, True]
    assert [v.is_success for v in verdicts] == [False, False, False, True]


def test_beside_it_pays_less(at: Callable, judge: Callable) -> None:
    verdicts = judge(TrackPath(near=0.5, near_turn=0.2), follow(at, 0.25, 0.1))
    assert [v.reward for v in verdicts[1:]] == pytest.approx([math.exp(-1)] * 3)
    assert verdicts[-1].is_success
    np.testing.assert_allclose(verdicts[-1].notes["error"], [0.75, 0.3])
    assert not judge(TrackPath(near=0.2, near_turn=0.2), follow(at, 0.25, 0.1))[-1].is_success
    assert not judge(TrackPath(near=0.5, near_turn=0.05), follow(at, 0.25, 0.1))[-1].is_success


def test_it_shows_the_coming_poses_as_the_camera_sees_them(at: Callable) -> None:
    task = TrackPath(ahead=2)
    episode = follow(at, 0, 0)[0]
    episode = dataclasses.replace(episode, verdict=task.begin(episode))
    seen = task.show(episode)["path"]
    assert seen.shape == (2, 9)
    np.testing.assert_allclose(seen[:, :3], PATH[:2, :3, 3], atol=1e-6)
    np.testing.assert_allclose(seen[1, 3:6], PATH[1, :3, 0], atol=1e-6)
    last = dataclasses.replace(episode, steps=2, pose=PATH[1])
    np.testing.assert_array_equal(task.show(last)["path"][0], task.show(last)["path"][1])


def test_drawn_paths_are_the_seeds_and_keep_to_their_speeds() -> None:
    task = TrackPath(steps=30, speed=0.4, turn=0.5, seconds=0.5)
    path = task.draw(3)
    np.testing.assert_array_equal(path, task.draw(3))
    assert not np.allclose(path, task.draw(4))
    twists = np.stack([twist_between(a, b, 0.5) for a, b in zip([np.eye(4), *path], path, strict=False)])
    np.testing.assert_allclose(twists[:, [0, 1, 3, 5]], 0, atol=1e-9)
    assert np.abs(twists[:, 2]).max() <= 0.4
    assert np.abs(twists[:, 4]).max() <= 0.5
    assert twists[:, 2].max() > 0.2


@pytest.mark.parametrize("path", [np.eye(4), np.tile(np.eye(4) * 2, (3, 1, 1)), np.zeros((0, 4, 4))])
def test_what_is_no_path(at: Callable, path: np.ndarray) -> None:
    with pytest.raises(InputError, match="path: expected"):
        TrackPath().begin(at(0, 0, 0, aims={"path": path}))


@pytest.mark.parametrize("values", [{"near": 0.0}, {"near_turn": -1.0}, {"steps": 0}, {"ahead": 0}, {"seconds": 0.0}])
def test_bad_numbers(values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(values))}: expected"):
        TrackPath(**values)
