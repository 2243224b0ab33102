"""A tree of coordinate frames that move: where one frame was in another at a given time.

As ROS's tf: every frame has one parent; a frame's pose in its parent is known at some times, or holds for ever.

Legend: N known poses of a frame, T times asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from world_model.errors import EpisodeError
from world_model.train.data.poses import rigid, rotations


@dataclass(frozen=True, kw_only=True)
class Motion:
    """A frame's pose in its parent."""

    parent: str
    times: np.ndarray  # (N,) seconds, ascending; empty: the one pose holds for ever
    position: np.ndarray  # (N, 3), or (1, 3)
    xyzw: np.ndarray  # (N, 4), or (1, 4)


def chain(frames: Mapping[str, Motion], frame: str, world: str) -> list[str]:
    """The frames from `frame` up to the child of `world`. EpisodeError where the chain breaks or has a loop."""
    climbed = [frame]
    while climbed[-1] != world:
        motion = frames.get(climbed[-1])
        if motion is None or motion.parent in climbed:
            raise EpisodeError(
                f"expected transforms from {frame} up to {world}, got {' -> '.join(climbed)} and no more"
            )
        climbed.append(motion.parent)
    return climbed[:-1]


def covered(frames: Mapping[str, Motion], frame: str, world: str) -> tuple[float, float]:
    """The first and the last time at which `frame` is known in `world`."""
    moving = [frames[name].times for name in chain(frames, frame, world) if len(frames[name].times)]
    return max([times[0] for times in moving], default=-np.inf), min([t[-1] for t in moving], default=np.inf)


def poses_in(frames: Mapping[str, Motion], frame: str, world: str, times: np.ndarray, max_gap: float) -> np.ndarray:
    """Poses of `frame` in `world` at `times` (T,) -> (T, 4, 4) float64.

    Between two known poses straight and at even speed (slerp). Raises EpisodeError outside what is known, and
    between poses that are more than `max_gap` seconds apart.
    """
    pose = np.tile(np.eye(4), (len(times), 1, 1))
    for name in chain(frames, frame, world):
        try:
            pose = _at(frames[name], times, max_gap) @ pose
        except EpisodeError as error:
            raise EpisodeError(f"transforms of {name} in {frames[name].parent}: {error}") from error
    return pose


def _at(motion: Motion, times: np.ndarray, max_gap: float) -> np.ndarray:
    known = motion.times
    if not len(known):
        return rigid(rotations(motion.xyzw), motion.position)
    if not (np.diff(known) > 0).all():
        raise EpisodeError("expected ascending times, got some that turn back")
    if times.min() < known[0] or times.max() > known[-1]:
        raise EpisodeError(
            f"expected times in {known[0]:.3f} to {known[-1]:.3f} s, got {times.min():.3f}, {times.max():.3f}"
        )
    if len(known) == 1:
        return rigid(rotations(motion.xyzw), motion.position)
    after = np.searchsorted(known, times).clip(1, len(known) - 1)
    gap = known[after] - known[after - 1]
    share = ((times - known[after - 1]) / gap)[:, None]
    within = (share[:, 0] > 0) & (share[:, 0] < 1)
    if (gap[within] > max_gap).any():
        worst = np.where(within, gap, 0).argmax()
        raise EpisodeError(
            f"expected a pose every {max_gap:g} s, got none for {gap[worst]:.3g} s at {times[worst]:.3f} s"
        )
    position = (1 - share) * motion.position[after - 1] + share * motion.position[after]
    return rigid(rotations(slerp(motion.xyzw[after - 1], motion.xyzw[after], share)), position)


def slerp(a: np.ndarray, b: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Unit quaternions (T, 4), (T, 4) and (T, 1) in 0..1 -> (T, 4), the shorter way round."""
    cosine = (a * b).sum(1, keepdims=True)
    b, cosine = np.where(cosine < 0, -b, b), np.abs(cosine).clip(0, 1)
    angle = np.arccos(cosine)
    sine = np.sin(angle)
    near = sine < 1e-6  # a straight line is as good
    sine = np.where(near, 1, sine)
    left = np.where(near, 1 - share, np.sin((1 - share) * angle) / sine)
    right = np.where(near, share, np.sin(share * angle) / sine)
    return left * a + right * b
