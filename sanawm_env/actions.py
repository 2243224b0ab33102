"""Twist actions: what an agent commands, and the camera poses that it leads to. Pure numpy, float64.

Poses are camera-to-world (c2w, 4x4), OpenCV axes (x right, y down, z forward), metres. A twist is [v, w] in the
camera's own axes, m/s and rad/s: +vz moves ahead, +wy turns right, +wx looks up, +wz rolls clockwise.

Shapes: ... any leading axes (worlds), F frames of a step.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from sanawm_env import se3
from sanawm_env.paths import MAX_TWIST
from world_model.errors import InputError

# The speeds up to which the shipped model's training data moves: beyond them it has to guess.
MAX_SPEED = tuple(MAX_TWIST[:3].tolist())  # m/s along x, y, z
MAX_TURN = tuple(MAX_TWIST[3:].tolist())  # rad/s about x, y, z
HALF_TURN = 3.0  # rad; above it sin(angle) is too small to tell the axis


def twist_limits(max_speed: float | Sequence[float], max_turn: float | Sequence[float]) -> np.ndarray:
    """The twist (6,) of an action of ones; each limit is one number for all axes or three. Raises InputError."""
    limits = []
    for name, given in (("max_speed", max_speed), ("max_turn", max_turn)):
        values = np.asarray(given, np.float64)
        if values.shape not in ((), (3,)) or not np.isfinite(values).all() or (values <= 0).any():
            raise InputError(f"{name}: expected one positive number or three, got {given!r}")
        limits.append(np.broadcast_to(values, 3))
    return np.concatenate(limits)


def check_action(action: ArrayLike, shape: tuple[int, ...] = (6,)) -> np.ndarray:
    """An action of `shape` as float64, or InputError: another shape, no floating point, NaN, or outside [-1, 1]."""
    given = np.asarray(action)
    if given.shape != shape or not np.issubdtype(given.dtype, np.floating):
        raise InputError(f"action: expected {shape} floating point, got {given.shape} {given.dtype}")
    if not np.isfinite(given).all():
        raise InputError(f"action: expected finite numbers, got {given.tolist()}")
    if (np.abs(given) > 1).any():
        raise InputError(f"action: expected numbers in [-1, 1], got {given.tolist()}")
    return given.astype(np.float64)


def integrate_twist(pose: np.ndarray, twist: np.ndarray, frames: int, fps: float) -> np.ndarray:
    """Poses (..., F, 4, 4) of the `frames` coming frames, from a pose (..., 4, 4) under one constant twist (..., 6).

    Raises InputError.
    """
    if frames < 1 or not fps > 0:
        raise InputError(f"integrate_twist: expected frames >= 1 and fps > 0, got {frames} and {fps}")
    twist = np.asarray(twist, np.float64)
    held = np.broadcast_to(twist[..., None, :], (*twist.shape[:-1], frames, 6))
    return se3.integrate(np.asarray(pose, np.float64), held, fps)


def twist_between(before: np.ndarray, after: np.ndarray, seconds: float) -> np.ndarray:
    """The constant twist (6,) that takes one pose (4, 4) to another in so many seconds: the inverse of integrating.

    Of the two turns that lead there, the one of at most 180 degrees.
    """
    rotation = before[:3, :3].T @ after[:3, :3]
    shift = before[:3, :3].T @ (after[:3, 3] - before[:3, 3])
    axis = _turn_vector(rotation)
    basis = se3.exp(np.concatenate([np.eye(3), np.tile(axis, (3, 1))], axis=1))  # columns of the shift's V matrix
    return np.concatenate([np.linalg.solve(basis[:, :3, 3].T, shift), axis]) / seconds


def _turn_vector(rotation: np.ndarray) -> np.ndarray:
    """Axis times angle (3,) of a rotation (3, 3)."""
    skew = (rotation - rotation.T) / 2
    sine = np.array([skew[2, 1], skew[0, 2], skew[1, 0]])  # axis times sin(angle)
    angle = np.arctan2(np.linalg.norm(sine), (np.trace(rotation) - 1) / 2)
    if angle < HALF_TURN:
        return sine / np.sinc(angle / np.pi)
    square = (rotation + rotation.T) / 2 - np.cos(angle) * np.eye(3)  # (1 - cos(angle)) times axis axis^T
    axis = square[:, np.argmax(np.diag(square))]
    return axis / np.linalg.norm(axis) * angle * (-1.0 if axis @ sine < 0 else 1.0)
