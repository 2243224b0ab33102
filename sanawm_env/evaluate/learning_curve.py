"""Score the policies that trainings saved, in the world model and in its twin, and draw how they learned.

    python -m sanawm_env.evaluate.learning_curve --runs runs/student-0 runs/student-1 --out curve

A run is a folder of TorchScript files policy_STEPS.pt, as examples/learners/teacher_student.py writes them. All play
the same starts, without noise on their actions. Episodes are kept as they end: a command that was stopped goes on.
"""

import csv
import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sanawm_env.evaluate.arenas import MODEL, TRUTH
from sanawm_env.evaluate.command import Evaluate, evaluate
from sanawm_env.evaluate.curve_chart import MEAN, Point, chart, label
from sanawm_env.evaluate.record import read_outcomes
from sanawm_env.evaluate.report import markdown
from sanawm_env.evaluate.rollouts import Outcome
from world_model.errors import InputError

OTHERS = "others"  # folder of the policies that do not learn
AHEAD = np.array([0, 0, 1, 0, 0, 0], np.float32)


def straight_ahead(picture: np.ndarray) -> np.ndarray:
    """Goals are in view at the start: so much succeeds without looking again."""
    return AHEAD


OPTIONS = Evaluate(
    policies=("random", "sanawm_env.evaluate.learning_curve:straight_ahead"),
    steps=32,
    baselines=(),
    camera_scenes=0,
    out=Path("curve"),
)


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """Options of the program: its runs, and how `sanawm evaluate` plays; the latter's policies become level lines."""

    runs: tuple[Path, ...]
    evaluation: Evaluate = field(default=OPTIONS)

    def __post_init__(self) -> None:
        names = [run.name for run in self.runs]
        if not names or len({*names, OTHERS, MEAN}) < len(names) + 2:
            raise InputError(f"runs: expected folders of different names, none {OTHERS!r} or {MEAN!r}, got {names}")


def learning_curve(config: LearningCurve) -> list[Point]:
    """Play what is not played yet; write curve.csv, curve.md and curve.svg into the evaluation's folder."""
    files = {run.name: saved(run) for run in config.runs}
    shared = sorted(set.intersection(*(set(own) for own in files.values())))
    if not shared:
        raise InputError(f"runs: expected policies after the same steps, got {[list(own) for own in files.values()]}")
    points: list[Point] = []
    alike: defaultdict[tuple[int, str], list[list[Outcome]]] = defaultdict(list)
    for run, own in files.items():
        found = play(config.evaluation, [str(file) for file in own.values()], run)
        for steps, file in own.items():
            for world in (MODEL, TRUTH):
                alike[steps, world].append(outcomes := found[world, str(file)])
                points.append(point(run, steps, world, [outcomes]))
    points += [point(MEAN, steps, world, alike[steps, world]) for steps in shared for world in (MODEL, TRUTH)]
    if policies := config.evaluation.policies:
        found = play(config.evaluation, policies, OTHERS)
        points += [point(policy, None, world, [own]) for (world, policy), own in found.items()]
    out = config.evaluation.out
    with (out / "curve.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([part.name for part in dataclasses.fields(Point)])
        table.writerows(dataclasses.astuple(each) for each in points)
    (out / "curve.md").write_text(to_markdown(points), encoding="utf-8")
    (out / "curve.svg").write_text(chart(points), encoding="utf-8")
    return points


def saved(run: Path) -> dict[int, Path]:
    """The policies of a run by the steps that they had learned for, in order. Raises InputError for none."""
    files = {int(file.stem.removeprefix("policy_")): file for file in sorted(run.glob("policy_*.pt"))}
    if not files:
        raise InputError(f"runs: expected files policy_STEPS.pt, got none in {run}")
    return dict(sorted(files.items()))


def play(evaluation: Evaluate, policies: Sequence[str], name: str) -> dict[tuple[str, str], list[Outcome]]:
    """Outcomes by world and policy, in the order of their starts. Each run keeps its own: one more is played alone."""
    folder = evaluation.out / name
    evaluate(dataclasses.replace(evaluation, policies=tuple(policies), out=folder))
    found: defaultdict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for world in (MODEL, TRUTH):
        for outcome in sorted(read_outcomes(folder / "episodes.jsonl", world), key=lambda each: each.seed):
            found[world, outcome.policy].append(outcome)
    return found


def point(run: str, steps: int | None, world: str, runs: Sequence[Sequence[Outcome]]) -> Point:
    """Means over starts and their standard errors; runs share the starts, so each start counts once."""
    each = np.array([[(outcome.success, outcome.total) for outcome in own] for own in runs]).mean(0)  # (starts, 2)
    (success, total), errors = each.mean(0), each.std(0, ddof=min(1, len(each) - 1)) / len(each) ** 0.5
    numbers = (round(float(number), 4) for number in (success, errors[0], total, errors[1]))
    return Point(run, steps, world, *numbers)


def to_markdown(points: Sequence[Point]) -> str:
    """A row for the mean of all runs after so many steps, and for each policy that does not learn."""
    rows: defaultdict[str, dict[str, Point]] = defaultdict(dict)
    for each in points:
        if each.run == MEAN or each.steps is None:
            rows[label(each.run) if each.steps is None else str(each.steps)][each.world] = each
    head = ["steps", "success, world model", "success, twin", "return, world model", "return, twin"]
    cells = [
        [name, *(f"{own[world].success:.2f} ± {own[world].success_error:.2f}" for world in (MODEL, TRUTH))]
        + [f"{own[world].total:+.2f} ± {own[world].total_error:.2f}" for world in (MODEL, TRUTH)]
        for name, own in rows.items()
    ]
    return markdown(head, cells) + "\n"


def main() -> None:
    """The program `python -m sanawm_env.evaluate.learning_curve`."""
    import tyro

    config = tyro.cli(
        LearningCurve,
        prog="python -m sanawm_env.evaluate.learning_curve",
        description=__doc__,
        config=(tyro.conf.OmitArgPrefixes,),
    )
    learning_curve(config)
    print((config.evaluation.out / "curve.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
