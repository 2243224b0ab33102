"""Twist actions: what an agent commands, and the camera poses that it leads to. Pure numpy, float64.

Poses are camera-to-world (c2w, 4x4), OpenCV axes (x right, y down, z forward), metres. A twist is [v, w] in the
camera's own axes, m/s and rad/s: +vz moves ahead, +wy turns right, +wx looks up, +wz rolls clockwise.

Shapes: ... any leading axes (worlds), F frames of a step.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from sanawm_env.paths import MAX_TWIST
from world_model.errors import InputError

# The speeds up to which the shipped model's training data moves: beyond them it has to guess.
MAX_SPEED = tuple(MAX_TWIST[:3].tolist())  # m/s along x, y, z
MAX_TURN = tuple(MAX_TWIST[3:].tolist())  # rad/s about x, y, z
SMALL_ANGLE = 0.05  # rad; below it (1 - sin(a)/a)/a^2 loses digits, and its series is exact to 1e-14


def twist_limits(max_speed: float | Sequence[float], max_turn: float | Sequence[float]) -> np.ndarray:
    """The twist (6,) of an action of ones; each limit is one number for all axes or three. Raises InputError."""
    limits = []
    for name, given in (("max_speed", max_speed), ("max_turn", max_turn)):
        values = np.asarray(given, np.float64)
        if values.shape not in ((), (3,)) or not np.isfinite(values).all() or (values <= 0).any():
            raise InputError(f"{name}: expected one positive number or three, got {given!r}")
        limits.append(np.broadcast_to(values, 3))
    return np.concatenate(limits)


def check_action(action: ArrayLike) -> np.ndarray:
    """An action (6,) as float64, or InputError: another shape, no floating point, NaN, or outside [-1, 1]."""
    given = np.asarray(action)
    if given.shape != (6,) or not np.issubdtype(given.dtype, np.floating):
        raise InputError(f"action: expected (6,) floating point, got {given.shape} {given.dtype}")
    if not np.isfinite(given).all():
        raise InputError(f"action: expected finite numbers, got {given.tolist()}")
    if (np.abs(given) > 1).any():
        raise InputError(f"action: expected numbers in [-1, 1], got {given.tolist()}")
    return given.astype(np.float64)


def se3_exp(twist: np.ndarray) -> np.ndarray:
    """The rigid motion (..., 4, 4) of twists (..., 6) that act for one unit of time."""
    v, w = twist[..., :3], twist[..., 3:]
    angle = np.linalg.norm(w, axis=-1)[..., None, None]
    cross = np.zeros((*twist.shape[:-1], 3, 3))
    cross[..., 2, 1], cross[..., 0, 2], cross[..., 1, 0] = w[..., 0], w[..., 1], w[..., 2]
    cross -= np.swapaxes(cross, -1, -2)
    a = np.sinc(angle / np.pi)  # sin(angle) / angle
    b = np.sinc(angle / (2 * np.pi)) ** 2 / 2  # (1 - cos(angle)) / angle^2
    large = np.maximum(angle, SMALL_ANGLE)
    series = 1 / 6 - angle**2 / 120 + angle**4 / 5040
    c = np.where(angle < SMALL_ANGLE, series, (1 - np.sinc(large / np.pi)) / large**2)
    square = cross @ cross
    motion = np.zeros((*twist.shape[:-1], 4, 4))
    motion[..., :3, :3] = np.eye(3) + a * cross + b * square
    motion[..., :3, 3] = ((np.eye(3) + b * cross + c * square) @ v[..., None])[..., 0]
    motion[..., 3, 3] = 1
    return motion


def nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    """The rotation nearest to nearly rotations (..., 3, 3)."""
    u, _, vt = np.linalg.svd(matrix)
    return u @ vt


def integrate_twist(pose: np.ndarray, twist: np.ndarray, frames: int, fps: float) -> np.ndarray:
    """Poses (..., F, 4, 4) of the `frames` coming frames, from a pose (..., 4, 4) under one constant twist (..., 6).

    Re-orthonormalised at every frame, so that rounding does not add up over an episode. Raises InputError.
    """
    if frames < 1 or not fps > 0:
        raise InputError(f"integrate_twist: expected frames >= 1 and fps > 0, got {frames} and {fps}")
    step = se3_exp(np.asarray(twist, np.float64) / fps)
    poses = []
    for _ in range(frames):
        pose = np.asarray(pose, np.float64) @ step
        pose[..., :3, :3] = nearest_rotation(pose[..., :3, :3])
        poses.append(pose)
    return np.stack(poses, axis=-3)
