"""Policies that are told where the camera and the goal are: bounds on what a policy of pixels can reach.

They would do the same under any renderer, so they are left out of the correlation.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sanawm_env.evaluate.steering import Steering

HALF_VIEW = 0.7  # tangent of half the default field of view


def to_goal(info: Mapping[str, Any]) -> np.ndarray:
    """Where the goal lies in the camera's axes, metres (3,), from what the environment tells in `info`."""
    pose = info["pose"]
    return pose[:3, :3].T @ (info["goal"] - pose[:3, 3])


@dataclass(frozen=True, kw_only=True)
class Expert:
    """Steers to the goal that it is told of. searching: as if it had to see it, turning right where it is not seen."""

    steering: Steering = field(default_factory=Steering)
    searching: bool = False
    reads = "pose"

    def begin(self, seed: int) -> "Expert":
        return self

    def __call__(self, info: Mapping[str, Any]) -> np.ndarray:
        """An action (6,) float32 for an `info` with pose and goal."""
        x, y, z = to_goal(info)
        if self.searching and (z <= 0 or max(abs(x), abs(y)) > HALF_VIEW * z):
            return np.array([0, 0, 0, 0, 0.5, 0], np.float32)
        return self.steering.towards(np.array([x, y, z]))
