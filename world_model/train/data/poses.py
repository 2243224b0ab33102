"""Camera poses as datasets write them -> camera-to-world matrices with OpenCV axes (x right, y down, z forward).

Only the camera's own axes matter: episodes are relative to their first frame, so any fixed world will do.

Legend: T frames.
"""

import numpy as np

from world_model.errors import EpisodeError

OPENCV_IN = {
    "opencv": np.eye(3),
    "opengl": np.diag([1.0, -1.0, -1.0]),  # x right, y up, z backward; also Blender and NeRF
    "ros_body": np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]),  # x forward, y left, z up
}  # axes of a camera -> OpenCV's three axes in these, as columns

LAYOUTS = {"matrix": (16, 12), "position_xyzw": (7,), "position_wxyz": (7,)}  # numbers a pose, row-major matrices
LOOSE = 1e-2  # how far a matrix may be from a rotation (printed digits, float16) and still be rounded to one


def from_layout(values: np.ndarray, layout: str, axes: str, metres: float) -> np.ndarray:
    """Poses (T, ...) as a dataset stores them -> (T, 4, 4) float64, OpenCV axes; `metres` a unit of length.

    Raises EpisodeError for another count of numbers, NaN, and for what is no rotation.
    """
    flat = np.asarray(values, np.float64).reshape(len(values), -1)
    if flat.shape[1] not in LAYOUTS[layout]:
        raise EpisodeError(f"poses: expected {LAYOUTS[layout]} numbers each ({layout}), got {flat.shape[1]}")
    if layout == "matrix":
        matrix = flat[:, :12].reshape(-1, 3, 4)
        c2w = rigid(nearest_rotations(matrix[:, :, :3]), matrix[:, :, 3])
    else:
        xyzw = flat[:, 3:] if layout == "position_xyzw" else flat[:, [4, 5, 6, 3]]
        c2w = rigid(rotations(xyzw), flat[:, :3])
    c2w[:, :3, 3] *= metres
    return with_opencv_axes(c2w, axes)


def with_opencv_axes(c2w: np.ndarray, axes: str) -> np.ndarray:
    """(T, 4, 4) of a camera with such axes -> of the same camera with OpenCV's."""
    turned = c2w.copy()
    turned[:, :3, :3] = c2w[:, :3, :3] @ OPENCV_IN[axes]
    return turned


def rotations(xyzw: np.ndarray) -> np.ndarray:
    """Quaternions (T, 4) -> (T, 3, 3). EpisodeError unless their lengths are 1 to 1%."""
    length = np.linalg.norm(xyzw, axis=1, keepdims=True)
    off = np.abs(length - 1).max()
    if not off <= LOOSE:  # NaN included
        raise EpisodeError(f"poses: expected quaternions of length 1, got a length off by {off:.3g}")
    x, y, z, w = (xyzw / length).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def nearest_rotations(matrices: np.ndarray) -> np.ndarray:
    """(T, 3, 3), within 1% of rotations -> exactly rotations. EpisodeError for anything else."""
    if not np.isfinite(matrices).all():
        raise EpisodeError("poses: expected finite numbers, got NaN or infinity")
    left, _, right = np.linalg.svd(matrices)
    nearest = left @ right
    off = np.abs(nearest - matrices).max()
    if off > LOOSE or np.linalg.det(nearest).min() < 0:
        raise EpisodeError(f"poses: expected rotations with determinant 1, got matrices off by {off:.3g}")
    return nearest


def rigid(rotation: np.ndarray, position: np.ndarray) -> np.ndarray:
    """(T, 3, 3), (T, 3) -> (T, 4, 4)."""
    pose = np.tile(np.eye(4), (len(rotation), 1, 1))
    pose[:, :3, :3], pose[:, :3, 3] = rotation, position
    return pose


def inverse(pose: np.ndarray) -> np.ndarray:
    """Of rigid transforms (T, 4, 4)."""
    back = pose[:, :3, :3].transpose(0, 2, 1)
    return rigid(back, -(back @ pose[:, :3, 3:])[:, :, 0])


def relative_to_first(c2w: np.ndarray) -> np.ndarray:
    """(T, 4, 4) -> the same path seen from its first camera, float32."""
    relative = inverse(c2w[:1]) @ c2w
    relative[0] = np.eye(4)
    return relative.astype(np.float32)
