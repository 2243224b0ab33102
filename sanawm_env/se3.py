"""Rigid motions in numpy, float64: exponential, nearest rotation, integration of twists into poses.

A twist is [v, w] in the body's own axes, per unit of time. Legend: ... any leading axes (worlds), F frames.
"""

import numpy as np

SMALL_ANGLE = 0.05  # rad; below it (1 - sin(a)/a)/a^2 loses digits, and its series is exact to 1e-14


def exp(twist: np.ndarray) -> np.ndarray:
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


def integrate(pose: np.ndarray, twists: np.ndarray, fps: float) -> np.ndarray:
    """Poses (..., F, 4, 4) of F coming frames, from a pose (..., 4, 4) and a twist per second for each (..., F, 6).

    Re-orthonormalised at every frame, so that rounding does not add up.
    """
    poses = []
    for step in np.moveaxis(exp(twists / fps), -3, 0):
        pose = pose @ step
        pose[..., :3, :3] = nearest_rotation(pose[..., :3, :3])
        poses.append(pose)
    return np.stack(poses, axis=-3)
