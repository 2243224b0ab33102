"""What lies beside an archive of the released training set: cameras, metric scales, scores, captions.

    NAME_camera.npz                   ids; ranges, a (first row, count) a clip; pose (N, 4, 4), intrinsics (N, 4)
    NAME_metric_scale_stats.json      what a clip's positions are multiplied with to become metres
    NAME<SUFFIX>.json or .jsonl       scores to choose clips by, other captions; by clip, or a list of {"key": ...}

Legend: N frames of all clips, F frames of a clip.
"""

import json
import logging
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from world_model.errors import EpisodeError
from world_model.train.data.poses import nearest_rotations, relative_to_first, rigid

log = logging.getLogger(__name__)

SCALE = "_metric_scale_stats"
ZOOM = 0.01  # how far a frame's focal length may lie from the clip's, as a share of it
PREFERRED = ("score", "median")  # of several numbers about a clip


@dataclass(frozen=True, kw_only=True)
class Sidecars:
    """All that is known about the clips of one archive, by their keys."""

    path: Path  # of the cameras
    rows: dict[str, slice]  # of `pose` and `intrinsics`
    pose: np.ndarray
    intrinsics: np.ndarray
    scales: Mapping[str, Any] | None
    captions: Mapping[str, Any]
    scores: tuple[tuple[Mapping[str, Any], tuple[float, float]], ...]  # with the lowest and the highest allowed

    def passes(self, key: str) -> bool:
        """Whether every score of a clip is known and within its bounds."""
        return all(key in said and low <= number(said[key]) <= high for said, (low, high) in self.scores)

    def caption(self, key: str) -> str | None:
        """A clip's other caption, if it has one."""
        said = self.captions.get(key)
        if isinstance(said, dict):
            said = next((text for text in [said.get("prompt"), *said.values()] if isinstance(text, str)), None)
        return said if isinstance(said, str) else None

    def camera(self, key: str, stride: int) -> tuple[np.ndarray, np.ndarray]:
        """c2w (F, 4, 4) float32, relative to the first frame, in metres, F = 1 + n*`stride`; and fx, fy, cx, cy.

        The scale multiplies positions alone. Raises EpisodeError when a clip has no camera or no scale, is shorter
        than two latents, or zooms.
        """
        if key not in self.rows:
            raise EpisodeError(f"expected a camera in {self.path}, got none")
        count = self.rows[key].stop - self.rows[key].start
        rows = slice(self.rows[key].start, self.rows[key].start + 1 + (count - 1) // stride * stride)
        pose, lenses = self.pose[rows].astype(np.float64), self.intrinsics[rows].astype(np.float64)
        if len(pose) <= stride or len(lenses) != len(pose):
            raise EpisodeError(f"expected cameras of more than {stride} frames, got {len(pose)} and {len(lenses)}")
        c2w = rigid(nearest_rotations(pose[:, :3, :3]), pose[:, :3, 3] * self._scale(key))
        lens = np.median(lenses, axis=0)
        if not np.isfinite(lenses).all() or lens[:2].min() <= 0:
            raise EpisodeError(f"expected finite intrinsics with fx, fy > 0, got a median of {lens.tolist()}")
        zoom = np.abs(lenses[:, :2] / lens[:2] - 1).max()
        if zoom > ZOOM:
            raise EpisodeError(f"expected focal lengths within {ZOOM:.0%} of their median, got {zoom:.1%}: a zoom")
        return relative_to_first(c2w), lens

    def _scale(self, key: str) -> float:
        if self.scales is None:
            return 1.0
        scale = number(self.scales.get(key))
        if not 0 < scale < np.inf:
            raise EpisodeError(f"expected a metric scale > 0, got {self.scales.get(key)}")
        return scale


def read_sidecars(archive: Path, filters: Mapping[str, tuple[float, float]], caption_suffix: str) -> Sidecars:
    """All that lies beside RAW/NAME.zip. Raises EpisodeError for broken files, and when there are no cameras."""
    path = _beside(archive, "_camera.npz")
    try:
        with np.load(path) as camera:
            ids, ranges, pose, intrinsics = (camera[name] for name in ("ids", "ranges", "pose", "intrinsics"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise EpisodeError(f"{path}: expected the arrays ids, ranges, pose and intrinsics, got {error}") from error
    if ranges.shape != (len(ids), 2) or pose.shape[1:] != (4, 4) or intrinsics.shape != (len(pose), 4):
        raise EpisodeError(
            f"{path}: expected ranges ({len(ids)}, 2), pose (N, 4, 4) and intrinsics (N, 4), "
            f"got {ranges.shape}, {pose.shape} and {intrinsics.shape}"
        )
    if (ranges < 0).any() or (ranges.sum(axis=1) > len(pose)).any():
        raise EpisodeError(
            f"{path}: expected ranges within the {len(pose)} frames, got up to {ranges.sum(axis=1).max()}"
        )
    scales = _read(archive, SCALE)
    if scales is None:
        log.warning(
            "%s: found no %s: its positions are taken as metres", archive, _beside(archive, f"{SCALE}.json").name
        )
    return Sidecars(
        path=path,
        rows={str(key): slice(int(first), int(first + count)) for key, (first, count) in zip(ids, ranges, strict=True)},
        pose=pose,
        intrinsics=intrinsics,
        scales=scales,
        captions=_needed(archive, caption_suffix) if caption_suffix else {},
        scores=tuple((_needed(archive, suffix), bounds) for suffix, bounds in filters.items()),
    )


def number(said: Any) -> float:
    """One number out of what a side-car says about a clip; NaN where it says none."""
    if isinstance(said, dict):
        names = [name for name in PREFERRED if name in said] or [*said]
        return next((x for x in (number(said[name]) for name in names) if not np.isnan(x)), np.nan)
    if isinstance(said, list):
        return float(np.mean([number(x) for x in said])) if said else np.nan
    return float(said) if isinstance(said, int | float) else np.nan


def _needed(archive: Path, suffix: str) -> dict[str, Any]:
    said = _read(archive, suffix)
    if said is None:
        name = _beside(archive, suffix).name
        raise EpisodeError(f"{archive}: expected a file {name}.json or {name}.jsonl beside it, got none")
    return said


def _read(archive: Path, suffix: str) -> dict[str, Any] | None:
    """NAME<suffix>.json or .jsonl by the clips' keys; None when there is neither."""
    one, lines = _beside(archive, f"{suffix}.json"), _beside(archive, f"{suffix}.jsonl")
    path = one if one.exists() else lines
    if not path.exists():
        return None
    try:
        text = path.read_text()
        said = json.loads(text) if path == one else [json.loads(line) for line in text.splitlines() if line.strip()]
        return said if isinstance(said, dict) else {str(item["key"]): item for item in said}
    except (ValueError, KeyError, TypeError) as error:
        raise EpisodeError(f"{path}: expected JSON, an object or items with a key each, got {error}") from error


def _beside(archive: Path, ending: str) -> Path:
    return archive.with_name(archive.stem + ending)
