"""What tasks need to know of two poses: how far apart, and one as seen from the other. Pure numpy, float64.

Poses are camera-to-world (4, 4), metres, OpenCV axes.
"""

import numpy as np

from world_model.errors import InputError

RIGID = 1e-3  # how far a given pose may be from a rigid motion


def apart(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Metres between two cameras, and radians of the turn from one to the other."""
    turn = one[:3, :3].T @ other[:3, :3]
    sine = np.linalg.norm([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]]) / 2
    angle = np.arctan2(sine, (np.trace(turn) - 1) / 2)  # exact at small angles too, unlike the arc cosine
    return float(np.linalg.norm(one[:3, 3] - other[:3, 3])), float(angle)


def seen_from(pose: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Poses (..., 4, 4) in the axes of a camera, as (..., 9) float32: position, first two columns of the rotation."""
    relative = np.linalg.inv(pose) @ others
    columns = np.clip(np.swapaxes(relative[..., :3, :2], -1, -2), -1, 1)  # rounding may pass 1
    return np.concatenate([relative[..., :3, 3], columns.reshape(*relative.shape[:-2], 6)], -1).astype(np.float32)


def check_rigid(name: str, poses: np.ndarray) -> np.ndarray:
    """Poses (..., 4, 4) as float64. Raises InputError for what is no rigid motion."""
    given = np.asarray(poses)
    if given.shape[-2:] != (4, 4) or given.size == 0 or given.dtype.kind not in "fiu":
        raise InputError(f"{name}: expected camera-to-world (..., 4, 4), got {given.shape} {given.dtype}")
    given = given.astype(np.float64)
    rotation = given[..., :3, :3]
    off = np.abs(np.swapaxes(rotation, -1, -2) @ rotation - np.eye(3)).max()
    last = np.abs(given[..., 3, :] - [0, 0, 0, 1]).max()
    if not (np.isfinite(given).all() and off <= RIGID and last <= RIGID and (np.linalg.det(rotation) > 0).all()):
        raise InputError(
            f"{name}: expected rigid motions to {RIGID}, got ones whose rotation is off by {off:.3g} and whose last "
            f"row is off by {last:.3g}, or that mirror"
        )
    return given


def check_positive(**numbers: float) -> None:
    """Raises InputError for a number that is not positive and finite."""
    for name, number in numbers.items():
        if not 0 < number < np.inf:
            raise InputError(f"{name}: expected a positive number, got {number}")
