"""Whether a model is good enough to ship, and what it should reach in time, from the rows of the fidelity table."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from world_model.fidelity import ALL, Row

STILL = "still"  # the kind of path without motion
TURNING = 10.0  # deg/s: paths commanded to turn faster than this are judged on how far they turn
MAX_GAIN_ERROR = 0.25
MAX_STILL_MOTION = 1.0  # deg/s
MAX_STILL_CHANGE = 2.0  # of 255, between neighbouring frames
MIN_GRADIENT = 0.5
AIMED_RESIDUAL = 2.0  # deg/s of paths that turn, beyond the estimate's own error
AIMED_PSNR = 23.0  # dB over pixels that the start frame saw, in second 1
AIMED_LEAD = 2.0  # dB above either baseline over such pixels, in second 4
AIMED_GRADIENT = (0.7, 1.3)  # share of the truth's gradient energy in second 4


@dataclass(frozen=True)
class Verdict:
    """One requirement, whether it holds, and the figures that say so."""

    name: str
    passed: bool
    figures: str


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """What a shipped model must do. Empty requirements (no such path or second measured) fail."""
    at, seconds, kinds, moving, turning = _read(rows)
    found = []
    for figure, pixels in (("psnr", "all pixels"), ("psnr_seen", "seen pixels")):
        lead = {(k, s): _lead(at, figure, [k], s, "repeat") for k in moving for s in seconds}
        found.append(_all_positive(f"beats the repeated frame, {pixels}", lead))
    for figure, pixels in (("psnr", "all pixels"), ("psnr_seen", "seen pixels")):
        lead = {("mean", s): _lead(at, figure, moving, s, "warp") for s in seconds if s >= 2}
        found.append(_all_positive(f"beats the rotation warp on average, {pixels}", lead))
    gains = {kind: at[kind, 1, "model"].gain for kind in turning}
    held = bool(gains) and all(abs(gain - 1) <= MAX_GAIN_ERROR for gain in gains.values())
    found.append(Verdict("turns within 25% of the command in second 1", held, _listing(gains, "{:.2f}")))
    still = [at[STILL, s, "model"] for s in seconds if STILL in kinds]
    held = bool(still) and all(r.motion <= MAX_STILL_MOTION and r.change <= MAX_STILL_CHANGE for r in still)
    figures = ", ".join(f"{r.second} s: {r.motion:.2f} deg/s, change {r.change:.2f}" for r in still)
    found.append(Verdict("stands still when told to", held, figures))
    sharp = {kind: at[kind, 2, "model"].gradient for kind in kinds if 2 in seconds}
    held = bool(sharp) and all(share >= MIN_GRADIENT for share in sharp.values())
    found.append(Verdict("keeps half of the gradient energy at 2 s", held, _listing(sharp, "{:.2f}")))
    return found


def targets(rows: Sequence[Row]) -> list[Verdict]:
    """What a model should reach in time. Targets without a measurement are missed."""
    at, seconds, _, moving, turning = _read(rows)
    beyond = {
        f"{kind} {second} s": at[kind, second, "model"].residual - at[kind, second, "truth"].residual
        for kind in turning
        for second in seconds
    }
    seen = {ALL: at[ALL, 1, "model"].psnr_seen}
    leads = {other: _lead(at, "psnr_seen", moving, 4, other) for other in ("repeat", "warp") if 4 in seconds}
    sharp = {ALL: at[ALL, 4, "model"].gradient} if 4 in seconds else {}
    low, high = AIMED_GRADIENT
    return [
        Verdict(
            f"turns within {AIMED_RESIDUAL:g} deg/s of the command, beyond the estimate's own error",
            bool(beyond) and max(beyond.values()) <= AIMED_RESIDUAL,
            _listing(beyond, "{:+.1f}"),
        ),
        Verdict(
            f"{AIMED_PSNR:g} dB over seen pixels in second 1", seen[ALL] >= AIMED_PSNR, _listing(seen, "{:.2f} dB")
        ),
        Verdict(
            f"{AIMED_LEAD:g} dB above both baselines over seen pixels in second 4, mean of moving paths",
            bool(leads) and all(lead >= AIMED_LEAD for lead in leads.values()),
            _listing(leads, "{:+.2f} dB"),
        ),
        Verdict(
            f"{low:g} to {high:g} of the gradient energy in second 4",
            bool(sharp) and all(low <= share <= high for share in sharp.values()),
            _listing(sharp, "{:.2f}"),
        ),
    ]


class _Read(NamedTuple):
    """The rows by (kind, second, system); the seconds; kinds of paths: all, those that move, those that turn."""

    at: dict[tuple[str, int, str], Row]
    seconds: list[int]
    kinds: list[str]
    moving: list[str]
    turning: list[str]


def _read(rows: Sequence[Row]) -> _Read:
    at = {(row.kind, row.second, row.system): row for row in rows}
    kinds = [kind for kind in dict.fromkeys(row.kind for row in rows) if kind != ALL]
    moving = [kind for kind in kinds if kind != STILL]
    turning = [kind for kind in moving if at[kind, 1, "model"].commanded >= TURNING]
    return _Read(at, sorted({row.second for row in rows}), kinds, moving, turning)


def _lead(at: dict[tuple[str, int, str], Row], figure: str, kinds: list[str], second: int, other: str) -> float:
    """By how much the model's mean over kinds lies above another system's; kinds where either is NaN are left out."""
    leads = [getattr(at[k, second, "model"], figure) - getattr(at[k, second, other], figure) for k in kinds]
    known = [lead for lead in leads if not math.isnan(lead)]
    return sum(known) / len(known) if known else math.nan


def _all_positive(name: str, lead: dict[tuple[str, int], float]) -> Verdict:
    # A second of which the start saw nothing has no masked figure: it decides nothing.
    known = {key: value for key, value in lead.items() if not math.isnan(value)}
    labelled = {f"{kind} {second} s": value for (kind, second), value in lead.items()}
    return Verdict(name, bool(known) and min(known.values()) > 0, _listing(labelled, "{:+.2f} dB"))


def _listing(figures: dict[str, float], form: str) -> str:
    return ", ".join(f"{name}: {'–' if math.isnan(v) else form.format(v)}" for name, v in figures.items())
