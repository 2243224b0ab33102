"""From where the goal lies to what the camera should do: what the servo and the privileged expert have in common.

An action is a twist [vx, vy, vz, wx, wy, wz] in [-1, 1] of the environment's default control, in camera axes (OpenCV:
x right, y down, z forward).
"""

from dataclasses import dataclass

import numpy as np

from sanawm_env.actions import MAX_SPEED, MAX_TURN
from world_model.errors import InputError, require_one_of

STEP = 0.25  # seconds of one step
WAYS = ("turn", "strafe")


@dataclass(frozen=True, kw_only=True)
class Steering:
    """way "turn": turn until the goal is in the middle, and go ahead the more the nearer it is to the middle.
    "strafe": the same without turning, by moving sideways and up and down.

    gain: share of the error that one step is to remove. speed: share of the top speed ahead.
    """

    way: str = "turn"
    gain: float = 0.8
    speed: float = 1.0

    def __post_init__(self) -> None:
        require_one_of("way", self.way, *WAYS)
        for name in ("gain", "speed"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"{name}: expected a number above 0 and at most 1, got {getattr(self, name)}")

    def towards(self, direction: np.ndarray) -> np.ndarray:
        """The action (6,) float32 for a goal in a direction (3,) of camera axes; its length does not matter."""
        x, y, z = direction / np.linalg.norm(direction)
        right, up = np.arctan2(x, z), np.arctan2(-y, np.hypot(x, z))
        ahead = self.speed * max(0.0, float(np.cos(2 * np.hypot(right, up)))) if z > 0 else 0.0
        action = np.zeros(6, np.float32)
        action[2] = ahead
        if self.way == "turn":
            action[4] = self.gain * right / (MAX_TURN[1] * STEP)
            action[3] = self.gain * up / (MAX_TURN[0] * STEP)
        else:  # as if the goal were two metres ahead
            action[0] = self.gain * 2 * np.tan(np.clip(right, -1.2, 1.2)) / (MAX_SPEED[0] * STEP)
            action[1] = -self.gain * 2 * np.tan(np.clip(up, -1.2, 1.2)) / (MAX_SPEED[1] * STEP)
        return np.clip(action, -1, 1)
