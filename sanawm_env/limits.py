"""Where a camera may go: a limit on its pitch and a range of heights. Pure numpy, float64.

Both are measured in the start camera's axes (OpenCV: x right, y down, z forward): level is as level as the start.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sanawm_env import se3
from world_model.errors import InputError

TOLERANCE = 1e-9  # rad and metres: rounding of a pose that was held at its limit


@dataclass(frozen=True, kw_only=True)
class Limits:
    """pitch: how far the view may point up or down, radians; height: lowest and highest, metres above the start."""

    pitch: float | None = None
    height: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if self.pitch is not None and not 0 < self.pitch < math.pi / 2:
            raise InputError(f"pitch_limit: expected radians between 0 and pi / 2, or None, got {self.pitch!r}")
        if self.height is not None:
            values = np.asarray(self.height, np.float64)
            if values.shape != (2,) or not values[0] <= 0 <= values[1]:
                raise InputError(f"height_range: expected metres (low <= 0, high >= 0), or None, got {self.height!r}")

    def hold(self, pose: np.ndarray) -> np.ndarray:
        """The allowed pose (4, 4) next to one: same heading and roll at the limit of pitch, same place but height."""
        held = pose.copy()
        if self.pitch is not None:
            held[:3, :3] = self._level(pose[:3, :3], self.pitch)
        if self.height is not None:
            low, high = self.height
            held[1, 3] = np.clip(pose[1, 3], -high, -low)  # y points down
        return held

    def check(self, poses: np.ndarray) -> None:
        """Raises InputError for poses (F, 4, 4) that are not all within the limits."""
        for frame, pose in enumerate(poses):
            if np.abs(self.hold(pose) - pose).max() > TOLERANCE:
                raise InputError(f"poses: expected all within {self}, got frame {frame} at {pose.tolist()}")

    def _level(self, rotation: np.ndarray, limit: float) -> np.ndarray:
        x, y, z = rotation[:, 2]  # where the camera looks
        pitch = math.atan2(-y, math.hypot(x, z))
        if abs(pitch) <= limit:
            return rotation
        across = np.array([z, 0.0, -x])  # horizontal, to the right of the view
        if np.linalg.norm(across) < TOLERANCE:  # straight up or down: the camera's own right
            across = rotation[:, 0] * [1, 0, 1]
        across /= np.linalg.norm(across)
        turn = se3.exp(np.concatenate([np.zeros(3), across * (math.copysign(limit, pitch) - pitch)]))
        return se3.nearest_rotation(turn[:3, :3] @ rotation)
