"""Goal views: pictures of a start scene from elsewhere, with the poses that they were taken at.

A bank of start scenes may hold them in a third file, `goals.safetensors`:

    images (N, K, H, W, 3) uint8      K views of each of its N scenes, with the lens of the scene's start picture
    poses (N, K, 4, 4) float64        camera-to-world relative to the start frame, metres, OpenCV axes

`python -m sanawm_env.make_goals` renders them for a bank of rendered rooms.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from world_model.errors import InputError

FILE = "goals.safetensors"


@dataclass(frozen=True, kw_only=True)
class GoalView:
    """image (H, W, 3) uint8; pose (4, 4) float64."""

    image: np.ndarray
    pose: np.ndarray


def read_goal_views(folder: Path, scenes: int) -> tuple[tuple[GoalView, ...], ...]:
    """The views of each scene of a bank, none where the file is not there. Raises InputError for a broken one."""
    path = folder / FILE
    if not path.exists():
        return ((),) * scenes
    try:
        arrays = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: expected goal views, got: {error}") from error
    images, poses = arrays.get("images"), arrays.get("poses")
    if images is None or poses is None or not len(images) == len(poses) == scenes or images.shape[1] != poses.shape[1]:
        got = {name: array.shape for name, array in arrays.items()}
        raise InputError(f"{path}: expected images and poses of as many views for each of {scenes} scenes, got {got}")
    return tuple(
        tuple(GoalView(image=image, pose=pose) for image, pose in zip(*of_scene, strict=True))
        for of_scene in zip(images, poses.astype(np.float64), strict=True)
    )


def write_goal_views(folder: Path, views: Sequence[Sequence[GoalView]]) -> None:
    """Write the views of each scene of a bank, as many of each."""
    if not views or len({len(of_scene) for of_scene in views}) != 1:
        raise InputError(f"goal views: expected as many of each scene, got {[len(of_scene) for of_scene in views]}")
    images = np.stack([np.stack([view.image for view in of_scene]) for of_scene in views])
    poses = np.stack([np.stack([view.pose for view in of_scene]) for of_scene in views])
    save_file({"images": images, "poses": poses}, folder / FILE)
