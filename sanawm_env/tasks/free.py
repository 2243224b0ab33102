"""No task: fly about, paid by a function of the user's, or not at all."""

from collections.abc import Callable
from dataclasses import dataclass

from sanawm_env.episode import Episode
from sanawm_env.verdict import Verdict
from world_model.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Transition:
    """One step as the user's own reward sees it: the episode before and after it, pictures and poses included."""

    before: Episode
    after: Episode


@dataclass(frozen=True, kw_only=True)
class NoTask:
    """Fly about: no success and no end but the time limit.

    Reward of a step: `reward_fn(transition)`, a finite number; without a function 0.
    """

    reward_fn: Callable[[Transition], float] | None = None
    needs_goal = False

    def __post_init__(self) -> None:
        if self.reward_fn is not None and not callable(self.reward_fn):
            raise InputError(f"reward_fn: expected a function of a Transition, or None, got {self.reward_fn!r}")

    def begin(self, episode: Episode) -> Verdict:
        return Verdict(reward=0.0, terminated=False, is_success=False)

    def judge(self, before: Episode, after: Episode) -> Verdict:
        reward = 0.0 if self.reward_fn is None else self.reward_fn(Transition(before=before, after=after))
        return Verdict(reward=reward, terminated=False, is_success=False)
