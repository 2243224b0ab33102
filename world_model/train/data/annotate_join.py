"""Chunks of a camera's path, each in a world and a scale of its own -> one path. Pure numpy.

Neighbouring chunks share frames, and in them points. Frames give the rotation between the two worlds and the way from
one origin to the other; the points' depths in the shared frames give the scale, also where the camera hardly moves.

Legend: K frames of a chunk, M observations, P points.
"""

from dataclasses import dataclass

import numpy as np

from world_model.errors import EpisodeError
from world_model.train.data.annotate_smooth import between
from world_model.train.data.poses import rigid

SHARED_FRAMES, SHARED_DEPTHS = 3, 12  # fewer cannot be trusted to join
TURN = np.radians(5)  # largest median disagreement of two chunks about the shared frames, after joining
SPREAD = 0.25  # largest median deviation of the logarithms of their depths' ratios


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A piece of a path as structure from motion finds it, or several that were joined."""

    frames: np.ndarray  # (K,) ascending, the frames that got a pose
    c2w: np.ndarray  # (K, 4, 4) float64, OpenCV axes
    focal: float  # in pixels of the working picture
    turned: float  # radians: the largest angle between two of its views
    seen: np.ndarray  # (M, 2) int64, frame and feature of each observation
    depth: np.ndarray  # (M,) along the optical axis
    point: np.ndarray  # (M,) index of the observed point
    pixel: np.ndarray  # (M, 2) where, from the principal point, in pixels of the working picture
    points: np.ndarray  # (P, 3)
    error: float  # median reprojection error in pixels of the working picture


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """x -> scale * rotation @ x + shift."""

    scale: float
    rotation: np.ndarray  # (3, 3)
    shift: np.ndarray  # (3,)

    def poses(self, c2w: np.ndarray) -> np.ndarray:
        """Of cameras (K, 4, 4)."""
        return rigid(self.rotation @ c2w[:, :3, :3], self.points(c2w[:, :3, 3]))

    def points(self, points: np.ndarray) -> np.ndarray:
        """Of points (P, 3)."""
        return self.scale * points @ self.rotation.T + self.shift


def spans(count: int, length: int, overlap: int) -> list[tuple[int, int]]:
    """[first, end) of overlapping chunks that cover `count` frames; the last one is as long as the others."""
    if count <= length:
        return [(0, count)]
    firsts = [*range(0, count - length, length - overlap), count - length]
    return [(first, first + length) for first in firsts]


def mean_rotation(rotations: np.ndarray) -> np.ndarray:
    """The rotation nearest to (K, 3, 3) on the average."""
    left, _, right = np.linalg.svd(rotations.sum(axis=0))
    return left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right


def align_positions(source: np.ndarray, target: np.ndarray) -> Similarity:
    """The similarity with the least squared distance from positions (K, 3) to others (Umeyama 1991).

    Raises EpisodeError when there are fewer than 3, or they do not move.
    """
    moved, fixed = source - source.mean(axis=0), target - target.mean(axis=0)
    spread = np.square(moved).sum()
    if len(source) < 3 or spread < 1e-12 or np.square(fixed).sum() < 1e-12:
        raise EpisodeError(f"alignment: expected at least 3 positions that differ, got {len(source)}")
    left, stretch, right = np.linalg.svd(fixed.T @ moved)
    sign = np.array([1, 1, np.linalg.det(left @ right)])
    rotation, scale = left @ np.diag(sign) @ right, float((stretch * sign).sum() / spread)
    return Similarity(
        scale=scale, rotation=rotation, shift=target.mean(axis=0) - scale * rotation @ source.mean(axis=0)
    )


def align(earlier: Chunk, later: Chunk) -> Similarity | None:
    """From the later chunk's world into the earlier one's; None where they share too little, or do not agree."""
    _, a, b = np.intersect1d(earlier.frames, later.frames, return_indices=True)
    _, m, n = np.intersect1d(_keys(earlier.seen), _keys(later.seen), return_indices=True)
    if len(a) < SHARED_FRAMES or len(m) < SHARED_DEPTHS:
        return None
    ratio = np.log(earlier.depth[m] / later.depth[n])
    scale = float(np.exp(np.median(ratio)))
    first, second = earlier.c2w[a], later.c2w[b]
    rotation = mean_rotation(first[:, :3, :3] @ second[:, :3, :3].transpose(0, 2, 1))
    apart = angles(first[:, :3, :3], rotation @ second[:, :3, :3])
    if np.median(apart) > TURN or np.median(np.abs(ratio - np.median(ratio))) > SPREAD:
        return None
    shift = np.median(first[:, :3, 3] - scale * second[:, :3, 3] @ rotation.T, axis=0)
    return Similarity(scale=scale, rotation=rotation, shift=shift)


def angles(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Between rotations (..., 3, 3), in radians."""
    cosine = (np.einsum("...ij,...ij->...", first, second) - 1) / 2
    return np.arccos(np.clip(cosine, -1, 1))


def join(chunks: list[Chunk]) -> list[Chunk]:
    """Neighbours joined as far as they agree; each result in the world and scale of its first chunk.

    Over the frames that two chunks share, the path passes evenly from the one to the other.
    """
    joined: list[Chunk] = []
    for chunk in chunks:
        move = align(joined[-1], chunk) if joined else None
        if move is None:
            joined.append(chunk)
        else:
            joined[-1] = _merge(joined[-1], chunk, move)
    return joined


def _merge(earlier: Chunk, later: Chunk, move: Similarity) -> Chunk:
    frames = np.union1d(earlier.frames, later.frames)
    shared, a, b = np.intersect1d(earlier.frames, later.frames, return_indices=True)
    moved = move.poses(later.c2w)
    c2w = np.empty((len(frames), 4, 4))
    c2w[np.searchsorted(frames, later.frames)] = moved
    c2w[np.searchsorted(frames, earlier.frames)] = earlier.c2w
    share = (np.arange(len(shared)) + 1) / (len(shared) + 1)
    c2w[np.searchsorted(frames, shared)] = between(earlier.c2w[a], moved[b], share)
    new = ~np.isin(later.seen[:, 0], earlier.frames)
    return Chunk(
        frames=frames,
        c2w=c2w,
        focal=earlier.focal,
        turned=max(earlier.turned, later.turned),
        seen=np.concatenate([earlier.seen, later.seen[new]]),
        depth=np.concatenate([earlier.depth, move.scale * later.depth[new]]),
        point=np.concatenate([earlier.point, len(earlier.points) + later.point[new]]),
        pixel=np.concatenate([earlier.pixel, later.pixel[new]]),
        points=np.concatenate([earlier.points, move.points(later.points)]),
        error=max(earlier.error, later.error),
    )


def _keys(seen: np.ndarray) -> np.ndarray:
    return seen[:, 0] * 2**32 + seen[:, 1]
