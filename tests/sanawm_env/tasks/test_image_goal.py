"""Image goal: by pose where one is known, by latents where not."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sanawm_env import se3
from sanawm_env.tasks import ImageGoal
from sanawm_env.tasks.image_goal import similarity
from world_model.errors import InputError

IMAGE = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)


@pytest.fixture
def goal_pose(at: Callable) -> np.ndarray:
    return at(0, 0, 2, (0, math.radians(60), 0)).pose


def test_it_pays_metres_and_radians(at: Callable, judge: Callable, goal_pose: np.ndarray) -> None:
    aims = {"goal_image": IMAGE, "goal_pose": goal_pose}
    turns = [(0, math.radians(angle), 0) for angle in (0, 0, 60, 60)]
    path = [at(0, 0, z, turn) for z, turn in zip((0, 1, 1, 1.7), turns, strict=True)]
    path[0] = dataclasses.replace(path[0], aims=aims)
    start, nearer, turned, arrived = judge(ImageGoal(metres_a_radian=0.3, bonus=2.0), path)
    assert not start.is_success
    assert nearer.reward == pytest.approx(1)
    assert turned.reward == pytest.approx(0.3 * math.radians(60))
    assert (turned.terminated, arrived.terminated, arrived.is_success) == (False, True, True)
    assert arrived.reward == pytest.approx(0.7 + 2)
    np.testing.assert_array_equal(arrived.notes["goal_image"], IMAGE)


def test_near_but_looking_elsewhere_is_no_success(at: Callable, judge: Callable, goal_pose: np.ndarray) -> None:
    start = dataclasses.replace(at(0, 0, 2, (0, 0, 0)), aims={"goal_image": IMAGE, "goal_pose": goal_pose})
    assert not judge(ImageGoal(), [start])[0].is_success
    assert judge(ImageGoal(angle=math.radians(61)), [start])[0].is_success


def test_without_a_pose_latents_decide(at: Callable, judge: Callable) -> None:
    rng = np.random.default_rng(0)
    goal, other = rng.normal(size=(2, 6, 4, 4)).astype(np.float32)
    blends = [at(0, 0, 0, latent=(share * goal + (1 - share) * other).astype(np.float32)) for share in (0, 0.5, 1)]
    blends[0] = dataclasses.replace(blends[0], aims={"goal_image": IMAGE, "goal_image_latent": goal})
    start, nearer, there = judge(ImageGoal(similarity=0.99, bonus=0.0), blends)
    assert (start.is_success, nearer.is_success, there.is_success, there.terminated) == (False, False, True, True)
    assert nearer.reward + there.reward == pytest.approx(1 - similarity(other, goal))


def test_similarity_is_of_means_over_the_picture() -> None:
    latent = np.random.default_rng(1).normal(size=(5, 3, 3)).astype(np.float32)
    assert similarity(latent, 3 * latent[:, ::-1]) == pytest.approx(1)  # moved within the picture, and stronger
    assert similarity(latent, -latent) == pytest.approx(-1)
    a, b = np.zeros((2, 2, 1, 1))
    a[:, 0, 0], b[:, 0, 0] = (1, 0), (3, 4)
    assert similarity(a, b) == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("aims", "message"),
    [
        ({}, r"expected options\['goal_image'\] or a start scene with goal views, got neither"),
        ({"goal_image": IMAGE}, "goal_pose: expected .* where nothing has latents to compare, got none"),
        ({"goal_image": IMAGE, "goal_pose": np.eye(4) * 2}, "goal_pose: expected rigid"),
        ({"goal_image": IMAGE, "goal_pose": se3.exp(np.zeros((2, 6)))}, r"goal_pose: expected \(4, 4\), got \(2, 4, 4"),
    ],
)
def test_aims_that_it_cannot_use(at: Callable, aims: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ImageGoal().begin(at(0, 0, 0, aims=aims))


@pytest.mark.parametrize("values", [{"distance": 0.0}, {"angle": -1.0}, {"similarity": 1.0}, {"bonus": math.inf}])
def test_bad_numbers(values: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(values))}: expected"):
        ImageGoal(**values)
