"""Explore: a new cell of place and heading pays one."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from sanawm_env.tasks import Explore
from world_model.errors import InputError


def yaw(degrees: float) -> tuple[float, float, float]:
    return 0, math.radians(degrees), 0


def test_new_cells_pay_and_old_ones_do_not(at: Callable, judge: Callable) -> None:
    places = [(0, 0, 0), (0, 0, 0.2), (0, 0, 0.3), (0, 5, 0.3), (0.26, 0, 0.3), (0, 0, 0), (0, 0, -0.26)]
    verdicts = judge(Explore(), [at(*place, yaw(0)) for place in places])
    assert [verdict.reward for verdict in verdicts] == [0, 0, 1, 0, 1, 0, 1]  # the fourth is only lower
    assert int(verdicts[-1].notes["visited"].sum()) == 4
    assert int(verdicts[0].notes["visited"].sum()) == 1  # what was noted is not written again


def test_headings_are_sectors_about_the_starts(at: Callable, judge: Callable) -> None:
    turns = [0, 22, 23, 67, 68, -22, -23, 180, -179]
    rewards = [verdict.reward for verdict in judge(Explore(), [at(0, 0, 0, yaw(turn)) for turn in turns])]
    assert rewards == [0, 0, 1, 0, 1, 0, 1, 1, 0]
    assert Explore(headings=1).cell_of(at(0, 0, 0, yaw(170)).pose) == (6, 6, 0)


def test_beyond_the_extent_nothing_pays(at: Callable, judge: Callable) -> None:
    task = Explore(cell=0.5, extent=1.0)
    assert task.shape == (5, 5, 8)
    rewards = [v.reward for v in judge(task, [at(0, 0, z, yaw(0)) for z in (0, 1.24, 1.26, -1.24, -1.26)])]
    assert rewards == [0, 1, 0, 1, 0]


def test_enough_is_success_and_the_end(at: Callable, judge: Callable) -> None:
    verdicts = judge(Explore(enough=3), [at(0, 0, z, yaw(0)) for z in (0, 0.5, 0.5, 1.0)])
    assert [v.is_success for v in verdicts] == [v.terminated for v in verdicts] == [False, False, False, True]


@pytest.mark.parametrize("values", [{"cell": 0.0}, {"extent": -1.0}, {"headings": 0}, {"enough": 1}, {"enough": 5000}])
def test_bad_numbers(values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(values))}: expected"):
        Explore(**values)
