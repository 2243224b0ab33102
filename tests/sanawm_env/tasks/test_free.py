"""No task: nothing is wanted, or what the user's own function pays."""

from collections.abc import Callable

import numpy as np
import pytest

from sanawm_env.tasks import NoTask, Transition, Verdict
from world_model.errors import InputError


def test_it_wants_nothing(at: Callable, judge: Callable) -> None:
    assert judge(NoTask(), [at(0, 0, 0), at(0, 0, 3)]) == [Verdict(reward=0.0, terminated=False, is_success=False)] * 2
    assert not NoTask().needs_goal


def test_it_pays_what_a_function_says(at: Callable, judge: Callable) -> None:
    def climbed(transition: Transition) -> float:
        return transition.before.pose[1, 3] - transition.after.pose[1, 3]  # y points down

    verdicts = judge(NoTask(reward_fn=climbed), [at(0, 0, 0), at(0, -0.5, 2), at(0, 0.25, 2)])
    assert [verdict.reward for verdict in verdicts] == [0, 0.5, -0.75]


def test_what_is_no_reward(at: Callable) -> None:
    with pytest.raises(InputError, match="reward_fn: expected a function of a Transition, or None, got 3"):
        NoTask(reward_fn=3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="reward: expected a finite number, got nan"):
        NoTask(reward_fn=lambda transition: np.nan).judge(at(0, 0, 0), at(0, 0, 1))
