"""From outcomes of episodes to the evaluation's table: scores of policies in each world, and how the worlds agree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sanawm_env.evaluate.rollouts import Outcome
from sanawm_env.evaluate.statistics import Agreement, Estimate, agreement, bootstrap_mean, wilson
from world_model.errors import InputError

GOAL_TOLERANCE = 1e-3  # metres between where two worlds say the goal of one start is
ASKED = 0.9  # of Pearson's r
SCORES = ("success", "total")


@dataclass(frozen=True, kw_only=True)
class Score:
    """Of one policy in one world. steps: mean length of its episodes."""

    success: Estimate
    total: Estimate
    steps: float


@dataclass(frozen=True, kw_only=True)
class Table:
    """scores: of each world, of each policy; the first world is the truth. agreements: of each other world, by what is
    compared ("success", "total": the return); bounds: policies that are left out of them.
    """

    scores: Mapping[str, Mapping[str, Score]]
    agreements: Mapping[str, Mapping[str, Agreement]]
    bounds: tuple[str, ...]

    @property
    def truth(self) -> str:
        return next(iter(self.scores))

    @property
    def counted(self) -> tuple[str, ...]:
        """Policies that count for agreement."""
        return tuple(policy for policy in self.scores[self.truth] if policy not in self.bounds)


def make_table(outcomes: Mapping[str, Sequence[Outcome]], policies: Sequence[str], bounds: Sequence[str]) -> Table:
    """The table of several worlds, the first of them the truth. Raises InputError unless all have the same starts."""
    sorted_out = {world: by_policy(world, own, policies) for world, own in outcomes.items()}
    truth, *others = sorted_out
    for world in others:
        check_pairs(truth, sorted_out[truth], world, sorted_out[world])
    counted = [policy for policy in policies if policy not in bounds]
    scores = {world: {policy: score(each[policy]) for policy in policies} for world, each in sorted_out.items()}
    agreements: dict[str, dict[str, Agreement]] = {}
    if len(counted) > 1:
        for world in others:
            agreements[world] = {
                name: agreement(matrix(sorted_out[world], counted, name), matrix(sorted_out[truth], counted, name))
                for name in SCORES
            }
    return Table(scores=scores, agreements=agreements, bounds=tuple(bounds))


def by_policy(world: str, outcomes: Sequence[Outcome], policies: Sequence[str]) -> dict[str, list[Outcome]]:
    """Outcomes of each policy in the order of their seeds."""
    found = {policy: sorted((o for o in outcomes if o.policy == policy), key=lambda o: o.seed) for policy in policies}
    lengths = {policy: len(each) for policy, each in found.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise InputError(f"{world}: expected equally many episodes of each policy, got {lengths}")
    return found


def check_pairs(truth: str, ours: Mapping[str, list[Outcome]], world: str, theirs: Mapping[str, list[Outcome]]) -> None:
    """Raises InputError unless episodes pair up: the same scene, seed and goal."""
    for policy, each in ours.items():
        starts = [(o.scene, o.seed) for o in each], [(o.scene, o.seed) for o in theirs[policy]]
        if starts[0] != starts[1]:
            raise InputError(f"{policy}: expected the same starts in {truth} and {world}, got {starts}")
        gaps = [float(np.abs(np.subtract(a.goal, b.goal)).max()) for a, b in zip(each, theirs[policy], strict=True)]
        if max(gaps) > GOAL_TOLERANCE:
            scene = each[int(np.argmax(gaps))].scene
            raise InputError(f"{scene}: expected one goal in {truth} and {world}, got {max(gaps):.3f} m between them")


def score(outcomes: Sequence[Outcome]) -> Score:
    return Score(
        success=wilson(sum(o.success for o in outcomes), len(outcomes)),
        total=bootstrap_mean([o.total for o in outcomes]),
        steps=float(np.mean([o.steps for o in outcomes])),
    )


def matrix(outcomes: Mapping[str, list[Outcome]], policies: Sequence[str], name: str) -> np.ndarray:
    """Scores (policies, episodes) float64."""
    return np.array([[float(getattr(o, name)) for o in outcomes[policy]] for policy in policies])


def verdicts(table: Table, world: str, baselines: Sequence[str]) -> list[tuple[str, bool]]:
    """What is asked of the world model's agreement, and whether it is so."""
    ours = table.agreements[world]["success"]
    lines = [(f"Pearson r of success rates >= {ASKED}: {ours.r:.3f}", ours.r >= ASKED)]
    for name in baselines:
        theirs = table.agreements[name]["success"]
        # A baseline that scores all policies alike has no r: anything above zero is ahead of it.
        r, rho = (0.0 if np.isnan(value) else value for value in (theirs.r, theirs.rho))
        lines += [
            (f"r above that of {name}: {ours.r:.3f} > {theirs.r:.3f}", ours.r > r),
            (f"rho above that of {name}: {ours.rho:.3f} > {theirs.rho:.3f}", ours.rho > rho),
            (f"rank violation below that of {name}: {ours.mmrv:.3f} < {theirs.mmrv:.3f}", ours.mmrv < theirs.mmrv),
        ]
    return lines
