"""The plot of a learning curve as SVG: success and return over steps, in the world model and in the twin.

Thick: the mean of the runs; thin: each run; level and dashed: policies that do not learn. Whiskers are one standard
error to either side.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sanawm_env.evaluate.arenas import MODEL, TRUTH
from sanawm_env.evaluate.chart import text

MEAN = "mean"
COLOURS = {MODEL: "#1f77b4", TRUTH: "#d62728"}
NAMES = {MODEL: "world model", TRUTH: "twin"}
WIDTH, HEIGHT, LEFT, TOP, GAP = 380, 260, 52, 34, 74  # pixels: a panel's sides, margins, between panels


@dataclass(frozen=True)
class Point:
    """Scores of a run's policy after `steps`, None for one that does not learn; errors are standard errors."""

    run: str
    steps: int | None
    world: str
    success: float
    success_error: float
    total: float  # the return
    total_error: float

    def score(self, name: str) -> tuple[float, float]:
        return (self.success, self.success_error) if name == "success" else (self.total, self.total_error)


@dataclass(frozen=True)
class Panel:
    """Where a score lies in the picture. steps, low, high: ends of the axes."""

    name: str
    left: float
    steps: int
    low: float
    high: float

    def x(self, steps: float) -> float:
        return self.left + WIDTH * steps / self.steps

    def y(self, value: float) -> float:
        return TOP + HEIGHT * (self.high - value) / (self.high - self.low)


def chart(points: Sequence[Point]) -> str:
    """SVG of two panels."""
    steps = max(each.steps or 0 for each in points)
    returns = [each.total + sign * each.total_error for each in points for sign in (-1, 1)]
    panels = (
        Panel("success", LEFT, steps, 0, 1),
        Panel("total", LEFT + WIDTH + GAP, steps, math.floor(min(returns)), math.floor(max(returns)) + 1),
    )
    width, height = LEFT + 2 * WIDTH + GAP + 20, TOP + HEIGHT + 78
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    runs = sorted({each.run for each in points if each.steps is not None} - {MEAN})
    lines = [*(runs if len(runs) > 1 else []), MEAN]  # the mean on top
    for panel, title in zip(panels, ("success rate", "return"), strict=True):
        parts += axes(panel, title)
        for world in COLOURS:
            for each in points:
                if each.steps is None and each.world == world:
                    parts += level(panel, each)
            for run in lines:
                parts += line(panel, [each for each in points if (each.run, each.world) == (run, world)], run == MEAN)
    return "\n".join([*parts, *legend(TOP + HEIGHT + 60, len(runs)), "</svg>"]) + "\n"


def axes(panel: Panel, title: str) -> Iterator[str]:
    """Frame, title and ticks."""
    bottom = TOP + HEIGHT
    yield f'<rect x="{panel.left}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="black"/>'
    yield text(panel.left + WIDTH / 2, TOP - 12, title)
    yield text(panel.left + WIDTH / 2, bottom + 34, "steps in the world model")
    for part in range(5):
        x = panel.x(panel.steps * part / 4)
        yield f'<line x1="{x:.1f}" y1="{bottom}" x2="{x:.1f}" y2="{bottom + 4}" stroke="black"/>'
        yield text(x, bottom + 17, f"{panel.steps * part / 4:g}")
    count = 4 if panel.name == "success" else round(panel.high - panel.low)  # returns: a tick a metre
    for part in range(count + 1):
        value = panel.low + (panel.high - panel.low) * part / count
        y = panel.y(value)
        yield f'<line x1="{panel.left - 4}" y1="{y:.1f}" x2="{panel.left}" y2="{y:.1f}" stroke="black"/>'
        yield text(panel.left - 7, y + 4, f"{value:g}", "end")


def level(panel: Panel, one: Point) -> Iterator[str]:
    """A policy that does not learn; its name stands once, by the line of the world model."""
    y, colour = panel.y(one.score(panel.name)[0]), COLOURS[one.world]
    ends = f'x1="{panel.left}" y1="{y:.1f}" x2="{panel.left + WIDTH}" y2="{y:.1f}"'
    yield f'<line {ends} stroke="{colour}" stroke-opacity="0.6" stroke-dasharray="5 4"/>'
    if one.world == MODEL:
        yield text(panel.left + WIDTH - 5, y - 4, label(one.run), "end")


def line(panel: Panel, points: Sequence[Point], is_mean: bool) -> Iterator[str]:
    """A run in one world, or the mean of all, from left to right; the worlds lie a little aside of one another."""
    points = sorted(points, key=lambda each: each.steps or 0)
    colour, aside = COLOURS[points[0].world], 2 if points[0].world == TRUTH else -2
    style = f'stroke="{colour}" stroke-width="{2.5 if is_mean else 1}" stroke-opacity="{1 if is_mean else 0.4}"'
    spots = [(panel.x(each.steps or 0) + aside, *each.score(panel.name)) for each in points]
    path = " ".join(f"{x:.1f},{panel.y(value):.1f}" for x, value, _ in spots)
    yield f'<polyline points="{path}" fill="none" {style}/>'
    for x, value, error in spots:
        high, low = panel.y(min(value + error, panel.high)), panel.y(max(value - error, panel.low))
        yield f'<line x1="{x:.1f}" y1="{high:.1f}" x2="{x:.1f}" y2="{low:.1f}" {style}/>'
        if is_mean:
            yield f'<circle cx="{x:.1f}" cy="{panel.y(value):.1f}" r="3.5" fill="{colour}"/>'


def legend(y: float, runs: int) -> Iterator[str]:
    """What colours and strokes mean."""
    for i, (world, colour) in enumerate(COLOURS.items()):
        x = LEFT + 150 * i
        yield f'<line x1="{x}" y1="{y - 4}" x2="{x + 22}" y2="{y - 4}" stroke="{colour}" stroke-width="2.5"/>'
        yield text(x + 28, y, f"in the {NAMES[world]}", "start")
    said = "whiskers: one standard error" + (f"; thin: each of {runs} trainings" if runs > 1 else "")
    yield text(LEFT + 300, y, said, "start")


def label(policy: str) -> str:
    """The name of a policy for people: that of a callable without its module."""
    return policy.rpartition(":")[2].replace("_", " ")
