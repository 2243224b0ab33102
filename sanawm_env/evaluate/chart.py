"""The plot of an evaluation as SVG: text that needs no library to write, and shows in every browser.

One panel a substitute: across, each policy's success rate in truth; up, its rate in the substitute; the whiskers are
95% intervals, the diagonal is agreement.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape

from sanawm_env.evaluate.statistics import Estimate

SIDE, LEFT, TOP, GAP = 260, 52, 34, 66  # pixels: a panel's side, margins, between panels
ROW = 16  # height of a line of the legend
APART = 17  # pixels between the numbers of two policies
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2")
Rates = Mapping[str, Estimate]  # of each policy


def chart(truth: Rates, substitutes: Mapping[str, Rates], titles: Mapping[str, str], truth_name: str) -> str:
    """SVG of success rates. titles: of each substitute, what stands above its panel. The policies are truth's keys."""
    policies = list(truth)
    columns = 2 if len(policies) > 6 else 1
    lines = -(-len(policies) // columns)
    width = LEFT + len(substitutes) * (SIDE + GAP)
    height = TOP + SIDE + 52 + lines * ROW + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for i, (name, rates) in enumerate(substitutes.items()):
        left = LEFT + i * (SIDE + GAP)
        parts += axes(left, titles[name], truth_name, name)
        spots = [point(left, truth[policy].value, rates[policy].value) for policy in policies]
        for number, (policy, label) in enumerate(zip(policies, spread(spots, left), strict=True), 1):
            parts += mark(left, truth[policy], rates[policy], label, number)
    parts += legend(policies, lines, (width - LEFT) // columns)
    return "\n".join([*parts, "</svg>"]) + "\n"


def axes(left: float, title: str, across: str, up: str) -> list[str]:
    """A panel's frame, its diagonal, ticks and names."""
    bottom = TOP + SIDE
    parts = [
        f'<rect x="{left}" y="{TOP}" width="{SIDE}" height="{SIDE}" fill="none" stroke="black"/>',
        f'<line x1="{left}" y1="{bottom}" x2="{left + SIDE}" y2="{TOP}" stroke="#bbb" stroke-dasharray="4 3"/>',
        text(left + SIDE / 2, TOP - 12, title),
        text(left + SIDE / 2, bottom + 34, f"success in {across}"),
        f'<g transform="translate({left - 34} {TOP + SIDE / 2}) rotate(-90)">{text(0, 0, f"success in {up}")}</g>',
    ]
    for share in (0, 0.25, 0.5, 0.75, 1):
        x, y = point(left, share, share)
        parts += [
            f'<line x1="{x:.1f}" y1="{bottom}" x2="{x:.1f}" y2="{bottom + 4}" stroke="black"/>',
            f'<line x1="{left - 4}" y1="{y:.1f}" x2="{left}" y2="{y:.1f}" stroke="black"/>',
            text(x, bottom + 17, f"{share:g}"),
            text(left - 7, y + 4, f"{share:g}", "end"),
        ]
    return parts


def spread(spots: Sequence[tuple[float, float]], left: float) -> list[tuple[float, float]]:
    """Where the number of each spot goes: on it, or beside it towards the panel's middle if another is there."""
    placed: list[tuple[float, float]] = []
    for x, y in spots:
        right, down = (1 if x < left + SIDE / 2 else -1), (1 if y < TOP + SIDE / 2 else -1)
        steps = sorted(((i, j) for i in range(8) for j in range(8)), key=lambda step: (sum(step), step[1]))
        tries = [(x + right * APART * i, y + down * APART * j) for i, j in steps]
        free = [spot for spot in tries if all(math.dist(spot, other) >= APART - 1 for other in placed)]
        placed.append(free[0] if free else (x, y))
    return placed


def mark(left: float, truth: Estimate, other: Estimate, label: tuple[float, float], number: int) -> list[str]:
    """A policy: its whiskers, its number, and a line between the two where the number had to give way."""
    colour = COLOURS[(number - 1) % len(COLOURS)]
    x, y = point(left, truth.value, other.value)
    (west, north), (east, south) = point(left, truth.low, other.high), point(left, truth.high, other.low)
    faint = f'stroke="{colour}" stroke-opacity="0.45"'
    return [
        f'<line x1="{west:.1f}" y1="{y:.1f}" x2="{east:.1f}" y2="{y:.1f}" {faint}/>',
        f'<line x1="{x:.1f}" y1="{north:.1f}" x2="{x:.1f}" y2="{south:.1f}" {faint}/>',
        f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{label[0]:.1f}" y2="{label[1]:.1f}" stroke="{colour}" stroke-width="2"/>',
        f'<circle cx="{label[0]:.1f}" cy="{label[1]:.1f}" r="8" fill="{colour}"/>',
        f'<text x="{label[0]:.1f}" y="{label[1] + 3.5:.1f}" text-anchor="middle" font-size="10" fill="white">{number}'
        "</text>",
    ]


def legend(policies: Sequence[str], lines: int, column: float) -> list[str]:
    """Numbers and names of the policies, in columns of so many lines."""
    top = TOP + SIDE + 62
    parts = []
    for i, policy in enumerate(policies):
        x, y = LEFT + (i // lines) * column, top + (i % lines) * ROW
        parts.append(f'<circle cx="{x}" cy="{y}" r="7" fill="{COLOURS[i % len(COLOURS)]}"/>')
        parts.append(f'<text x="{x}" y="{y + 3.5}" text-anchor="middle" font-size="10" fill="white">{i + 1}</text>')
        parts.append(text(x + 13, y + 4, policy, "start"))
    return parts


def point(left: float, across: float, up: float) -> tuple[float, float]:
    """Pixels of a pair of rates in a panel."""
    return left + across * SIDE, TOP + (1 - up) * SIDE


def text(x: float, y: float, words: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
