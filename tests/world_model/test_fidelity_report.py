"""Verdicts and reports of tables that are written by hand."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from tests.world_model.box_room import episode
from world_model.fidelity import ALL, SYSTEMS, Row
from world_model.fidelity_report import comparison, to_json, to_markdown
from world_model.fidelity_verdicts import targets, verdicts

KINDS = ("yaw", "pitch", "forward", "strafe", "still", "random")
PSNR = {"model": 20.0, "repeat": 15.0, "warp": 17.0, "tokenizer": 30.0, "truth": 60.0}


def row(kind: str, second: int, system: str) -> Row:
    """A row of a model that is good enough in every respect."""
    return Row(
        kind=kind,
        second=second,
        system=system,
        episodes=6,
        psnr=PSNR[system],
        psnr_seen=PSNR[system] + 1,
        ssim=0.5,
        ssim_seen=0.6,
        left_out=0,
        gradient=0.7,
        change=1.0,
        commanded=30.0 if kind in ("yaw", "pitch", "random") else 0.0,
        gain=0.9 if kind in ("yaw", "pitch", "random") else math.nan,
        residual=3.0,
        motion=0.3 if kind == "still" else 28.0,
        frechet=0.1 if kind == ALL else math.nan,
    )


GOOD = [row(kind, second, system) for kind in (*KINDS, ALL) for second in (1, 2, 3, 4) for system in SYSTEMS]


def changed(kind: str, second: int, system: str = "model", **values: float) -> list[Row]:
    """The good table with other values in one row."""
    key = (kind, second, system)
    return [dataclasses.replace(r, **values) if (r.kind, r.second, r.system) == key else r for r in GOOD]


def failing(rows: list[Row]) -> list[str]:
    return [verdict.name for verdict in verdicts(rows) if not verdict.passed]


def test_a_good_model_passes() -> None:
    assert failing(GOOD) == []
    assert len(verdicts(GOOD)) == 7


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        (changed("strafe", 4, psnr=14.9), "beats the repeated frame, all pixels"),
        (changed("yaw", 3, psnr_seen=15.9), "beats the repeated frame, seen pixels"),
        (changed("yaw", 2, "warp", psnr=33.0), "beats the rotation warp on average, all pixels"),
        (changed("pitch", 4, "warp", psnr_seen=34.0), "beats the rotation warp on average, seen pixels"),
        (changed("pitch", 1, gain=0.74), "turns within 25% of the command in second 1"),
        (changed("yaw", 1, gain=1.26), "turns within 25% of the command in second 1"),
        (changed("still", 4, motion=1.1), "stands still when told to"),
        (changed("still", 2, change=2.1), "stands still when told to"),
        (changed("random", 2, gradient=0.49), "keeps half of the gradient energy at 2 s"),
    ],
)
def test_each_requirement_fails_alone(rows: list[Row], name: str) -> None:
    assert failing(rows) == [name]


@pytest.mark.parametrize(
    "rows",
    [
        changed("still", 2, psnr=1.0),  # the repeated frame is perfect where nothing moves
        changed("yaw", 1, "warp", psnr=40.0),  # the warp is compared from the second second on
        changed("forward", 2, "warp", psnr=30.0),  # and on average over paths
        changed("yaw", 3, gain=0.1),  # turning is judged in the first second
        changed("yaw", 4, psnr_seen=math.nan),  # the start saw nothing of it
    ],
)
def test_what_is_not_required_does_not_fail(rows: list[Row]) -> None:
    assert failing(rows) == []


def test_requirements_without_a_measurement_fail() -> None:
    only_forward = [r for r in GOOD if r.kind in ("forward", ALL) and r.second == 1]
    assert len(failing(only_forward)) == 5


def missed(rows: list[Row]) -> list[str]:
    return [target.name for target in targets(rows) if not target.passed]


NEAR = [dataclasses.replace(r, psnr_seen=24.0) if r.system == "model" else r for r in GOOD]


@pytest.mark.parametrize(
    ("key", "values", "name"),
    [
        (("yaw", 3), {"residual": 5.1}, "turns within 2 deg/s of the command, beyond the estimate's own error"),
        ((ALL, 1), {"psnr_seen": 22.9}, "23 dB over seen pixels in second 1"),
        (
            ("yaw", 4),
            {"psnr_seen": 3.0},
            "2 dB above both baselines over seen pixels in second 4, mean of moving paths",
        ),
        ((ALL, 4), {"gradient": 0.69}, "0.7 to 1.3 of the gradient energy in second 4"),
        ((ALL, 4), {"gradient": 1.31}, "0.7 to 1.3 of the gradient energy in second 4"),
    ],
)
def test_each_target_is_missed_alone(key: tuple[str, int], values: dict[str, float], name: str) -> None:
    assert missed(NEAR) == []
    worse = [dataclasses.replace(r, **values) if (r.kind, r.second, r.system) == (*key, "model") else r for r in NEAR]
    assert missed(worse) == [name]


def test_targets_without_a_measurement_are_missed() -> None:
    assert len(missed([r for r in NEAR if r.kind in ("forward", ALL) and r.second == 1])) == 3


def test_verdicts_carry_their_figures() -> None:
    figures = {verdict.name: verdict.figures for verdict in verdicts(changed("yaw", 4, psnr_seen=math.nan))}
    assert "strafe 3 s: +5.00 dB" in figures["beats the repeated frame, all pixels"]
    assert "yaw 4 s: –" in figures["beats the repeated frame, seen pixels"]
    assert figures["turns within 25% of the command in second 1"] == "yaw: 0.90, pitch: 0.90, random: 0.90"


def test_markdown_has_a_line_for_every_path_and_second() -> None:
    text = to_markdown(GOOD)
    assert text.count("\n| yaw | 3 |") == text.count("\n| all | 4 |") == 4
    assert "- pass: stands still when told to (1 s: 0.30 deg/s" in text
    widths = {line.count("|") for line in text.splitlines() if "PSNR" not in line and line.startswith("| yaw | 1")}
    assert len(widths) > 1
    assert "nan" not in text


def test_json_says_null_where_a_figure_does_not_apply() -> None:
    read = json.loads(to_json(GOOD, {"model": "nano-1"}))
    assert read["model"] == "nano-1"
    assert len(read["rows"]) == len(GOOD)
    assert read["rows"][0]["frechet"] is None
    assert read["verdicts"][0]["passed"] is True
    assert [target["passed"] for target in read["targets"]] == [True, False, True, True]


def test_comparison_lays_truth_above_the_model() -> None:
    some = episode("yaw", [0, 0, 0, 0, 30, 0], frames=9, size=16)
    blank = torch.zeros(9, 16, 16, 3, dtype=torch.uint8)
    sheet = comparison([some, some], [blank, blank], every=4)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (4 * 16 + 3 * 4, 3 * 16 + 2 * 4, 3)
    assert np.array_equal(sheet[:16, 20:36], some.frames[4])
    assert not sheet[20:36, 40:].any()
