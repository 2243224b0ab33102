"""More camera paths from the same footage: an episode in a mirror, backwards in time, and both.

Exact for still scenes, and costs an encoding instead of a rendering; not for footage in which things move by
themselves, or whose captions tell left from right.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from world_model.train.data.episode import Episode

MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])  # x to the right becomes x to the left


def mirrored(episode: Episode) -> Episode:
    """Left and right exchanged: pixels, poses, principal point and goal."""
    fx, fy, cx, cy = episode.intrinsics.T
    return dataclasses.replace(
        episode,
        frames=np.ascontiguousarray(episode.frames[:, :, ::-1]),
        c2w=(MIRROR @ episode.c2w @ MIRROR).astype(np.float32),
        intrinsics=np.stack([fx, fy, episode.frames.shape[2] - cx, cy], 1),
        goal=None if episode.goal is None else episode.goal * np.float32([-1, 1, 1]),
        depth=None if episode.depth is None else np.ascontiguousarray(episode.depth[:, :, ::-1]),
    )


def backwards(episode: Episode) -> Episode:
    """The last frame first; poses and goal relative to it."""
    c2w = episode.c2w[::-1].astype(np.float64)
    home = np.linalg.inv(c2w[0])
    goal = None if episode.goal is None else home[:3, :3] @ episode.goal + home[:3, 3]
    return dataclasses.replace(
        episode,
        frames=np.ascontiguousarray(episode.frames[::-1]),
        c2w=(home @ c2w).astype(np.float32),
        intrinsics=np.ascontiguousarray(episode.intrinsics[::-1]),
        goal=None if goal is None else goal.astype(np.float32),
        depth=None if episode.depth is None else np.ascontiguousarray(episode.depth[::-1]),
    )


def varied_frames(suffix: str, frames: np.ndarray) -> np.ndarray:
    """The frames (T, H, W, 3) of the variant with this suffix, as a view of those of the episode."""
    frames = frames[:, :, ::-1] if "~mirrored" in suffix else frames
    return frames[::-1] if "~backwards" in suffix else frames


VARIANTS: dict[str, Callable[[Episode], Episode]] = {
    "": lambda episode: episode,
    "~mirrored": mirrored,
    "~backwards": backwards,
    "~mirrored~backwards": lambda episode: backwards(mirrored(episode)),
}  # suffix of the episode's name -> what becomes of it
