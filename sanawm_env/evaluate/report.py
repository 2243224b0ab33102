"""The evaluation's table for people (Markdown), for programs (JSON), and as a plot (SVG)."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from sanawm_env.evaluate.camera import CameraError
from sanawm_env.evaluate.chart import chart
from sanawm_env.evaluate.statistics import Agreement, Estimate
from sanawm_env.evaluate.table import Table, verdicts


def to_markdown(
    table: Table, world: str, baselines: Sequence[str], camera: Mapping[str, Mapping[str, CameraError]]
) -> str:
    """Verdicts, agreement, scores and camera-control errors."""
    parts = []
    if table.agreements:
        checks = [f"- {'pass' if passed else 'FAIL'}: {text}" for text, passed in verdicts(table, world, baselines)]
        parts += ["\n".join(checks), agreement_table(table)]
    parts += [score_table(table, "success"), score_table(table, "total")]
    if camera:
        parts.append(camera_table(camera))
    return "\n\n".join(parts) + "\n"


def agreement_table(table: Table) -> str:
    """How each substitute's scores agree with the truth's."""
    rows = []
    for world, agreements in table.agreements.items():
        success, total = agreements["success"], agreements["total"]
        rows.append([world, *(cells(success)), *(cells(total))])
    head = ["world", "success: r (95%)", "rho", "MMRV", "return: r (95%)", "rho", "MMRV"]
    return f"**Agreement with {table.truth} over {len(table.counted)} policies**\n\n{markdown(head, rows)}"


def cells(agreement: Agreement) -> list[str]:
    interval = f"({number(agreement.r_low)} to {number(agreement.r_high)})"
    return [f"{number(agreement.r)} {interval}", number(agreement.rho), number(agreement.mmrv)]


def score_table(table: Table, name: str) -> str:
    """One line a policy, one column a world; bounds are marked."""
    rows = [
        [
            f"{policy} (bound)" if policy in table.bounds else policy,
            *(estimate(getattr(scores[policy], name)) for scores in table.scores.values()),
        ]
        for policy in table.scores[table.truth]
    ]
    title = {"success": "Success rate", "total": "Return"}[name]
    return f"**{title}, 95% interval**\n\n{markdown(['policy', *table.scores], rows)}"


def camera_table(camera: Mapping[str, Mapping[str, CameraError]]) -> str:
    """One line a world and a kind of path."""
    rows = [
        [
            world,
            kind,
            number(error.turn_gain),
            f"{error.turn_error:.2f}",
            number(error.move_gain),
            f"{error.move_error:.3f}",
            f"{error.direction_error:.0f}" if math.isfinite(error.direction_error) else "–",
        ]
        for world, kinds in camera.items()
        for kind, error in kinds.items()
    ]
    head = ["world", "path", "turn: gain", "error, deg/s", "move: gain", "error, m/s", "direction error, deg"]
    return f"**Camera control: recovered from the video against commanded**\n\n{markdown(head, rows)}"


def to_json(table: Table, camera: Mapping[str, Mapping[str, CameraError]], about: Mapping[str, Any]) -> str:
    """Everything, with what it was measured on; no number is written as null."""
    content = {
        "about": about,
        "bounds": table.bounds,
        "scores": {w: {p: dataclasses.asdict(s) for p, s in each.items()} for w, each in table.scores.items()},
        "agreement": {w: {n: dataclasses.asdict(a) for n, a in each.items()} for w, each in table.agreements.items()},
        "camera": {w: {k: dataclasses.asdict(e) for k, e in each.items()} for w, each in camera.items()},
    }
    return json.dumps(without_nan(content), indent=1, allow_nan=False) + "\n"


def without_nan(value: Any) -> Any:
    """The same with None for numbers that are not there: JSON knows no nan."""
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_svg(table: Table) -> str:
    """The plot of success rates of the policies that count."""
    rates = {
        world: {policy: scores[policy].success for policy in table.counted} for world, scores in table.scores.items()
    }
    truth = rates.pop(table.truth)
    titles = {
        world: f"{world}: r {number(own['success'].r)}, MMRV {number(own['success'].mmrv)}"
        for world, own in table.agreements.items()
    }
    return chart(truth, rates, titles, table.truth)


def estimate(value: Estimate) -> str:
    return f"{value.value:.2f} ({value.low:.2f} to {value.high:.2f})"


def number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "–"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    align = ["---" if i == 0 else "---:" for i in range(len(head))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, align, *rows))
