"""Learning curves: what is scored after which steps, means and errors, the picture, and a training from end to end."""

import csv
import dataclasses
import json
import math
import re
import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sanawm_env.evaluate.command import Evaluate
from sanawm_env.evaluate.curve_chart import MEAN, Point, chart
from sanawm_env.evaluate.learning_curve import OPTIONS, LearningCurve, learning_curve, point, to_markdown
from sanawm_env.evaluate.rollouts import Outcome
from sanawm_env.learners.pixel_policy import PixelPolicy
from world_model.errors import InputError

EXAMPLE = Path(__file__).parents[3] / "examples" / "learners" / "teacher_student.py"


@pytest.fixture
def options(model_folder: Path, tmp_path: Path) -> Evaluate:
    """Three scenes, whose goals are reached by nine steps ahead. The twin is the world model, too slow for that."""
    arguments = {"model": str(model_folder)}
    return dataclasses.replace(
        OPTIONS,
        twin="SanaWM-v0",
        env_args=json.dumps(arguments),
        twin_args=json.dumps(arguments | {"max_speed": 0.1}),
        episodes=3,
        steps=10,
        worlds=3,
        out=tmp_path / "curve",
    )


def save(path: Path, ahead: float) -> None:
    policy = PixelPolicy()
    torch.nn.init.zeros_(policy.steer[2].weight)
    policy.steer[2].bias.data = torch.tensor([0, ahead, 0])
    policy.save(path)


def test_policies_are_scored_by_run_and_by_steps(options: Evaluate, tmp_path: Path) -> None:
    runs = (tmp_path / "one", tmp_path / "other")
    for run, last in zip(runs, (9.0, 0.0), strict=True):
        save(run / "policy_00008.pt", ahead=0.0)
        save(run / "policy_00100.pt", ahead=last)
    config = LearningCurve(runs=runs, evaluation=options)
    points = learning_curve(config)
    rates = {(each.run, each.steps, each.world): each.success for each in points}
    for world in ("model", "twin"):
        reached = float(world == "model")
        assert [rates["one", steps, world] for steps in (8, 100)] == [0, reached]
        assert [rates["other", steps, world] for steps in (8, 100)] == [0, 0]
        assert [rates[MEAN, steps, world] for steps in (8, 100)] == [0, reached / 2]
        assert rates["random", None, world] == 0
        assert rates["sanawm_env.evaluate.learning_curve:straight_ahead", None, world] == reached
    rows = list(csv.DictReader((options.out / "curve.csv").open()))
    assert [float(row["success"]) for row in rows] == [each.success for each in points]
    assert "| 100 | 0.50 ± 0.00 | 0.00 ± 0.00 |" in (options.out / "curve.md").read_text()
    assert "| straight ahead | 1.00 ± 0.00 | 0.00 ± 0.00 |" in (options.out / "curve.md").read_text()
    # what was cut off is played again, and nothing else
    record = options.out / "one" / "episodes.jsonl"
    whole = record.read_text()
    record.write_text("".join(whole.splitlines(keepends=True)[:-2]))
    assert learning_curve(config) == points
    assert sorted(record.read_text().splitlines()) == sorted(whole.splitlines())


def test_each_start_counts_once() -> None:
    def outcome(success: bool, total: float) -> Outcome:
        return Outcome(
            policy="p", scene="s", seed=0, success=success, total=total, steps=1, distance=0.0, goal=(0.0, 0.0, 1.0)
        )

    one = [outcome(True, 2.0), outcome(False, 0.0), outcome(False, 1.0)]
    other = [outcome(True, 4.0), outcome(True, 0.0), outcome(False, 1.0)]
    both = point("mean", 8, "model", [one, other])
    assert (both.success, both.total) == (0.5, pytest.approx(4 / 3, abs=1e-4))
    assert both.success_error == pytest.approx(0.5 / math.sqrt(3), abs=1e-4)  # of the starts' 1, 0.5, 0
    assert both.total_error == pytest.approx(np.std([3, 0, 1], ddof=1) / math.sqrt(3), abs=1e-4)
    assert point("r", 8, "model", [one[:1]]).success_error == 0


def two_runs() -> list[Point]:
    rates = {"one": (0.25, 0.75), "other": (0.25, 0.25), MEAN: (0.25, 0.5)}
    return [
        Point(run, steps, world, rate + better, 0.1, 2 * rate, 0.5)
        for run, pair in rates.items()
        for steps, rate in zip((500, 1000), pair, strict=True)
        for world, better in (("model", 0.0), ("twin", 0.2))
    ] + [Point("a:straight_ahead", None, world, 0.125, 0.05, -0.5, 0.1) for world in ("model", "twin")]


def test_the_chart_shows_every_point_with_its_error() -> None:
    text = chart(two_runs())
    lines = re.findall(r'<polyline points="([\d., -]+)" fill="none" stroke="(#\w+)" stroke-width="([\d.]+)"', text)
    assert len(lines) == 2 * 2 * 3  # panels, worlds, two runs and their mean
    thick = [
        [tuple(map(float, spot.split(","))) for spot in path.split()] for path, _, width in lines if width == "2.5"
    ]
    (x, y), (x_after, y_after) = thick[0]  # success in the world model
    assert x_after - x == pytest.approx(190)  # half the panel of 380 pixels is 500 steps
    assert y - y_after == pytest.approx(65)  # a quarter more of 260 pixels
    assert f'<line x1="{x:.1f}" y1="{y - 26:.1f}" x2="{x:.1f}" y2="{y + 26:.1f}"' in text  # 0.1 to either side
    (x_twin, y_twin), _ = thick[1]
    assert (x_twin - x, y - y_twin) == (pytest.approx(4), pytest.approx(52))  # beside it, 0.2 higher
    assert text.count("<circle") == 2 * 2 * 2
    assert text.count("stroke-dasharray") == 2 * 2
    for words in (
        "success rate",
        "return",
        "in the twin",
        "in the world model",
        "straight ahead",
        "each of 2 trainings",
    ):
        assert words in text
    alone = chart([each for each in two_runs() if each.run in ("one", MEAN)])
    assert alone.count("<polyline") == 4  # its mean is the run itself
    assert "trainings" not in alone
    assert (
        to_markdown(two_runs()).splitlines()[2] == "| 500 | 0.25 ± 0.10 | 0.45 ± 0.10 | +0.50 ± 0.50 | +0.50 ± 0.50 |"
    )


def test_runs_are_checked(options: Evaluate, tmp_path: Path) -> None:
    for runs in ((), (tmp_path / "a" / "run", tmp_path / "b" / "run"), (tmp_path / "mean",)):
        with pytest.raises(InputError, match="runs: expected folders of different names"):
            LearningCurve(runs=runs)
    with pytest.raises(InputError, match=r"expected files policy_STEPS\.pt, got none in"):
        learning_curve(LearningCurve(runs=(tmp_path / "empty",), evaluation=options))
    save(tmp_path / "one" / "policy_8.pt", 0.0)
    save(tmp_path / "other" / "policy_9.pt", 0.0)
    with pytest.raises(InputError, match=r"expected policies after the same steps, got \[\[8\], \[9\]\]"):
        learning_curve(LearningCurve(runs=(tmp_path / "one", tmp_path / "other"), evaluation=options))


def test_a_training_and_its_curve(options: Evaluate, model_folder: Path, tmp_path: Path) -> None:
    parts = runpy.run_path(str(EXAMPLE))
    train: Callable[..., None] = parts["main"]
    train.__globals__.update(BATCH=8, FIRST=8, UPDATES=2)  # so that few steps reach every part of it
    train(model=str(model_folder), worlds=2, steps=80, out=tmp_path / "run")
    rows = list(csv.DictReader((tmp_path / "run" / "curve.csv").open()))
    assert {row["success"] for row in rows} <= {"0", "1"}
    assert rows
    saved = sorted((tmp_path / "run").glob("policy_*.pt"))
    assert [int(file.stem[7:]) for file in saved] == list(range(10, 81, 10))
    first, last = (torch.jit.load(str(file)).state_dict() for file in (saved[0], saved[-1]))
    assert all((first[name] != last[name]).any() for name in ("look.0.weight", "steer.2.weight"))
    points = learning_curve(
        LearningCurve(runs=(tmp_path / "run",), evaluation=dataclasses.replace(options, policies=(), steps=2))
    )
    assert [each.steps for each in points if (each.run, each.world) == (MEAN, "twin")] == list(range(10, 81, 10))
