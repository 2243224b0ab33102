"""Reach: progress in metres, a bonus, an end."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from sanawm_env.tasks import Reach, Verdict
from world_model.errors import InputError

GOAL = np.array([0.0, 0.0, 3.0])


def test_it_pays_progress_in_metres(at: Callable, judge: Callable) -> None:
    to = partial(at, goal=GOAL)
    start, ahead, back = judge(Reach(), [to(0, 0, 0), to(0, 0, 0.25), to(0, 0, 0)])
    assert start == Verdict(reward=0.0, terminated=False, is_success=False)
    assert ahead.reward == pytest.approx(0.25)
    assert not ahead.terminated
    assert back.reward == pytest.approx(-0.25)
    assert Reach().judge(to(4, 0, 3), to(0, 4, 3)).reward == pytest.approx(0)


def test_it_sums_to_the_distance_covered_whatever_the_way(at: Callable, judge: Callable) -> None:
    path = [at(*place, goal=GOAL) for place in ((0, 0, 0), (2, 0, 0.4), (-1, 1, 1), (0, 0, 1.5))]
    assert sum(verdict.reward for verdict in judge(Reach(), path)) == pytest.approx(1.5)


def test_it_ends_within_the_radius(at: Callable) -> None:
    to = partial(at, goal=GOAL)
    outside, inside = to(0, 0, 2.19), to(0.3, 0.1, 2.3)
    assert not Reach().judge(to(0, 0, 2), outside).is_success
    verdict = Reach(bonus=2.0).judge(outside, inside)
    assert (verdict.terminated, verdict.is_success, verdict.truncated) == (True, True, False)
    assert verdict.reward == pytest.approx(2 + 0.81 - np.sqrt(0.09 + 0.01 + 0.49))
    assert Reach(radius=3.0).begin(to(0, 0, 0)).is_success


@pytest.mark.parametrize("values", [{"radius": 0.0}, {"radius": float("nan")}, {"bonus": -1.0}])
def test_bad_numbers(values: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(values))}: expected"):
        Reach(**values)


def test_without_a_goal(at: Callable) -> None:
    with pytest.raises(InputError, match=r"expected a goal \(3,\), got none"):
        Reach().judge(at(0, 0, 0), at(0, 0, 1))
