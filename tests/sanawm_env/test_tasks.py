"""Rewards and success from poses and goals alone."""

from itertools import pairwise

import numpy as np
import pytest

from sanawm_env import se3
from sanawm_env.tasks import TASKS, NoTask, Reach, Verdict, make_task
from world_model.errors import InputError


def at(x: float, y: float, z: float) -> np.ndarray:
    """A pose at a position, turned somewhere: rewards must not depend on where the camera looks."""
    pose = se3.exp(np.array([0, 0, 0, 0.3, -1.1, 0.2]))
    pose[:3, 3] = x, y, z
    return pose


GOAL = np.array([0.0, 0.0, 3.0])


def test_reach_pays_progress_in_metres() -> None:
    verdict = Reach().judge(GOAL, at(0, 0, 0), at(0, 0, 0.25))
    assert verdict == Verdict(reward=pytest.approx(0.25), terminated=False, is_success=False)
    assert Reach().judge(GOAL, at(0, 0, 0.25), at(0, 0, 0)).reward == pytest.approx(-0.25)
    assert Reach().judge(GOAL, at(4, 0, 3), at(0, 4, 3)).reward == pytest.approx(0)


def test_reach_sums_to_the_distance_covered_whatever_the_way() -> None:
    path = [at(0, 0, 0), at(2, 0, 0.4), at(-1, 1, 1), at(0, 0, 1.5)]
    rewards = [Reach().judge(GOAL, a, b).reward for a, b in pairwise(path)]
    assert sum(rewards) == pytest.approx(1.5)


def test_reach_ends_within_the_radius() -> None:
    outside, inside = at(0, 0, 2.19), at(0.3, 0.1, 2.3)
    assert not Reach().judge(GOAL, at(0, 0, 2), outside).is_success
    verdict = Reach(bonus=2.0).judge(GOAL, outside, inside)
    assert (verdict.terminated, verdict.is_success) == (True, True)
    assert verdict.reward == pytest.approx(2 + 0.81 - np.sqrt(0.09 + 0.01 + 0.49))
    assert Reach(radius=3.0).is_success(GOAL, at(0, 0, 0))


def test_no_task_wants_nothing() -> None:
    task = NoTask()
    assert task.judge(None, at(0, 0, 0), at(0, 0, 3)) == Verdict(reward=0.0, terminated=False, is_success=False)
    assert not task.is_success(GOAL, at(0, 0, 3))
    assert not task.needs_goal


def test_tasks_by_name_and_by_object() -> None:
    assert {name: type(make_task(name)) for name in TASKS} == {"reach": Reach, "none": NoTask}
    mine = Reach(radius=0.3)
    assert make_task(mine) is mine
    with pytest.raises(
        InputError, match=r"expected one of .* or an object with needs_goal, is_success and judge, got 3"
    ):
        make_task(3)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("values", [{"radius": 0.0}, {"radius": float("nan")}, {"bonus": -1.0}])
def test_bad_numbers(values: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(values))}: expected"):
        Reach(**values)


def test_reach_without_a_goal() -> None:
    with pytest.raises(InputError, match=r"expected a goal \(3,\), got none"):
        Reach().judge(None, at(0, 0, 0), at(0, 0, 1))
