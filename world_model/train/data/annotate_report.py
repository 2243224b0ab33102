"""What became of every video: report.json beside the episodes, and a table for people."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from world_model.errors import InputError
from world_model.train import snapshot
from world_model.train.data.annotate_filters import Quality

REPORT = "report.json"


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A stretch of a video between cuts and holes."""

    start: float  # seconds from the video's first frame
    seconds: float
    episodes: tuple[str, ...]  # names of the folders; empty: left out
    reasons: tuple[str, ...]  # why it was left out
    quality: Quality | None  # None where no path was found
    field_of_view: float | None  # horizontal, degrees
    lens: str  # estimated, given or guessed
    metres: float | None  # a unit of the path as found


@dataclass(frozen=True, kw_only=True)
class VideoReport:
    """A video and its pieces."""

    video: str
    key: str  # of the file and the settings
    seconds: float
    pieces: tuple[Piece, ...]
    refused: str = ""  # why there are no pieces

    @property
    def kept(self) -> float:
        """Seconds that became episodes."""
        return sum(piece.seconds for piece in self.pieces if piece.episodes)


def as_json(report: VideoReport) -> dict[str, Any]:
    """As it is read back from disk."""
    return json.loads(json.dumps(dataclasses.asdict(report) | {"kept": report.kept}))


def read_reports(out: Path) -> dict[str, dict[str, Any]]:
    """What was reported before, by the videos' names. Raises InputError for a file that is no report."""
    path = out / REPORT
    if not path.exists():
        return {}
    try:
        return {entry["video"]: entry for entry in json.loads(path.read_text())["videos"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: expected a report of annotate, got {error}") from error


def write_reports(out: Path, reports: Sequence[dict[str, Any]]) -> None:
    text = json.dumps({"videos": sorted(reports, key=lambda entry: entry["video"])}, indent=1)
    snapshot.write_file(out / REPORT, text.encode())


def table(reports: Sequence[dict[str, Any]]) -> str:
    """A line a piece: where, how well, what became of it."""
    columns = f"{'registered':>10} {'px':>5} {'parallax':>8} {'fov':>6} {'lens':<10}"
    lines = [f"{'video':<24} {'from s':>7} {'s':>6} {columns} result"]
    for report in reports:
        name = Path(report["video"]).name[:24]
        if report["refused"]:
            lines.append(f"{name:<24} refused: {report['refused']}")
        for piece in report["pieces"]:
            quality = piece["quality"]
            figures = f"{'-':>10} {'-':>5} {'-':>8}"
            if quality:
                figures = f"{quality['registered']:>10.0%} {quality['error']:>5.2f} {quality['parallax']:>8.2f}"
            fov = f"{piece['field_of_view']:.1f}" if piece["field_of_view"] else "-"
            count = len(piece["episodes"])
            result = "; ".join(piece["reasons"]) or f"{count} episode{'s' if count > 1 else ''}"
            lines.append(
                f"{name:<24} {piece['start']:>7.1f} {piece['seconds']:>6.1f} {figures} {fov:>6} "
                f"{piece['lens']:<10} {result}"
            )
    kept, whole = (sum(report[key] for report in reports) for key in ("kept", "seconds"))
    episodes = sum(len(piece["episodes"]) for report in reports for piece in report["pieces"])
    return "\n".join([*lines, f"{episodes} episodes, {kept:.1f} of {whole:.1f} seconds"])
