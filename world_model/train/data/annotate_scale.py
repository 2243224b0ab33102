"""Metres for a path that structure from motion knows only up to its size. The user says one thing that is known.

Legend: T frames, P points, N moments of a reference trajectory.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from world_model.errors import EpisodeError, InputError, require
from world_model.train.data.annotate_join import align_positions

PLANES = 400  # tried for the floor
LEVEL = np.radians(25)  # how far the floor may lean against the cameras' average down
THICK = 0.02  # of the median depth: how far from its plane a point of the floor may lie
LEAST_FLOOR = 0.05  # of the points below the cameras
SEED = 0


@dataclass(frozen=True, kw_only=True)
class Path3D:
    """What a scale is found from: a path in a unit of its own."""

    times: np.ndarray  # (T,) seconds from the video's first frame
    c2w: np.ndarray  # (T, 4, 4)
    points: np.ndarray  # (P, 3), in the same world
    depth: float  # the median depth of what is seen


class Scale(Protocol):
    """A rule that gives metres a unit. `metres` raises EpisodeError where it does not apply to a path."""

    def metres(self, path: Path3D) -> float: ...


@dataclass(frozen=True)
class Baseline:
    """The camera's positions at two times, seconds from the video's start, lie so many metres apart."""

    start: float
    end: float
    length: float

    def __post_init__(self) -> None:
        require(0 <= self.start < self.end, f"baseline: expected 0 <= start < end, got {self.start}, {self.end}")
        require(self.length > 0, f"baseline: expected metres > 0, got {self.length}")

    def metres(self, path: Path3D) -> float:
        if self.start < path.times[0] - 0.1 or self.end > path.times[-1] + 0.1:
            raise EpisodeError(
                f"baseline: expected a piece that holds {self.start:g} to {self.end:g} s, "
                f"got one of {path.times[0]:.1f} to {path.times[-1]:.1f} s"
            )
        first, last = (path.c2w[np.abs(path.times - t).argmin(), :3, 3] for t in (self.start, self.end))
        apart = float(np.linalg.norm(last - first))
        if apart < 0.01 * path.depth:
            raise EpisodeError(f"baseline: expected a camera that moves, got {apart / path.depth:.2g} median depths")
        return self.length / apart


@dataclass(frozen=True)
class CameraHeight:
    """The camera is so many metres above a floor that it sees, by the median over the path."""

    height: float

    def __post_init__(self) -> None:
        require(self.height > 0, f"camera height: expected metres > 0, got {self.height}")

    def metres(self, path: Path3D) -> float:
        return self.height / height_over_floor(path)


@dataclass(frozen=True)
class SceneDepth:
    """A guess: half of what is seen is nearer than so many metres."""

    depth: float

    def __post_init__(self) -> None:
        require(self.depth > 0, f"scene depth: expected metres > 0, got {self.depth}")

    def metres(self, path: Path3D) -> float:
        return self.depth / path.depth


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A trajectory in metres, measured by other means."""

    times: np.ndarray  # (N,) seconds from the video's first frame, ascending
    positions: np.ndarray  # (N, 3)

    def metres(self, path: Path3D) -> float:
        known = (path.times >= self.times[0]) & (path.times <= self.times[-1])
        if known.sum() < 3:
            raise EpisodeError(
                f"reference: expected it to cover {path.times[0]:.1f} to {path.times[-1]:.1f} s, "
                f"got {self.times[0]:.1f} to {self.times[-1]:.1f} s"
            )
        target = np.stack([np.interp(path.times[known], self.times, axis) for axis in self.positions.T], 1)
        return align_positions(path.c2w[known, :3, 3], target).scale


def read_reference(file: Path) -> Reference:
    """A text file with `seconds x y z` a line; more columns (TUM's quaternion) and lines with # are passed over."""
    try:
        lines = [line.split("#")[0].replace(",", " ").split() for line in file.read_text().splitlines()]
        rows = np.array([[float(word) for word in line[:4]] for line in lines if line], np.float64)
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: expected lines of seconds x y z, got {error}") from error
    if rows.ndim != 2 or rows.shape[1] != 4 or len(rows) < 3 or not (np.diff(rows[:, 0]) > 0).all():
        raise InputError(f"{file}: expected at least 3 lines of seconds x y z, times ascending, got {rows.shape}")
    if not np.isfinite(rows).all():
        raise InputError(f"{file}: expected finite numbers, got NaN or infinity")
    return Reference(times=rows[:, 0], positions=rows[:, 1:])


def height_over_floor(path: Path3D) -> float:
    """The median height of a path over the floor, in its own unit.

    The floor is the most populous plane, out of those through three points, that lies about level and has little
    beneath it. Raises EpisodeError where there is none.
    """
    centres = path.c2w[:, :3, 3]
    down = path.c2w[:, :3, 1].mean(axis=0)
    down /= np.linalg.norm(down)
    below = path.points[(path.points - centres.mean(axis=0)) @ down > 0.05 * path.depth]
    best, floor = 0.0, None
    rng = np.random.default_rng(SEED)
    for _ in range(PLANES if len(below) >= 3 else 0):
        a, b, c = below[rng.choice(len(below), 3, replace=False)]
        normal = np.cross(b - a, c - a)
        length = np.linalg.norm(normal)
        if length < 1e-9 * path.depth**2:
            continue
        normal *= np.sign(normal @ down) / length
        if normal @ down < np.cos(LEVEL):
            continue
        off = (below - a) @ normal
        score = (np.abs(off) < THICK * path.depth).sum() - 2 * (off > 2 * THICK * path.depth).sum()
        if score > best:
            best, floor = float(score), (a, normal)
    if floor is None or best < max(LEAST_FLOOR * len(below), 8):
        raise EpisodeError(f"camera height: expected a floor in view, got none among {len(below)} points below")
    return float(np.median((floor[0] - centres) @ floor[1]))
