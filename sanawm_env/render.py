"""Draws scenes with PyBullet's software renderer: no GPU, no window, the same pixels on every run.

Intrinsics are (fx, fy, cx, cy) in pixels; the centre of pixel (column i, row j) lies at (i + 0.5, j + 0.5).
"""

import contextlib
import struct
import tempfile
from pathlib import Path
from types import TracebackType

import numpy as np

from sanawm_env.meshes import scene_meshes
from sanawm_env.scenes import Scene
from world_model.errors import BackendError, InputError

try:
    import pybullet
except ModuleNotFoundError as error:
    raise BackendError("rooms: expected PyBullet (pip install 'sanawm-env[bullet]'), got none") from error

NEAR, FAR = 0.1, 40.0
OPENCV_TO_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
AMBIENT, DIFFUSE = 0.74, 0.36
# Where a pixel is sampled, as (x, y) shares of it. Three such samples come within 1 dB of a 2x2 grid (36.4
# against 37.3 dB to 36 samples a pixel) in four fifths of its time; one sample reaches 29.4 dB, two 34.3.
SAMPLES = ((1 / 6, 1 / 2), (1 / 2, 5 / 6), (5 / 6, 1 / 6))


def pinhole(fov: float, width: int, height: int) -> np.ndarray:
    """Intrinsics (4,) float64 of a centred camera with square pixels and a horizontal field of view in radians."""
    focal = width / 2 / np.tan(fov / 2)
    return np.array([focal, focal, width / 2, height / 2])


def view_matrix(c2w: np.ndarray) -> list[float]:
    """PyBullet's column-major OpenGL view matrix of a c2w (4, 4) in OpenCV axes."""
    return np.linalg.inv(c2w @ OPENCV_TO_OPENGL).T.ravel().tolist()


def projection_matrix(intrinsics: np.ndarray, width: int, height: int) -> list[float]:
    """PyBullet's column-major OpenGL projection matrix of a pinhole (4,).

    TinyRenderer samples pixel (i, j) at its lower left corner (i, j + 1), not at its centre: the principal
    point is moved by half a pixel each way to make up for it. A test compares its depth with ray casting.
    """
    fx, fy, cx, cy = intrinsics
    cx, cy = cx - 0.5, cy + 0.5
    matrix = np.zeros((4, 4))
    matrix[0, 0], matrix[0, 2] = 2 * fx / width, 1 - 2 * cx / width
    matrix[1, 1], matrix[1, 2] = 2 * fy / height, 2 * cy / height - 1
    matrix[2, 2], matrix[2, 3] = -(FAR + NEAR) / (FAR - NEAR), -2 * FAR * NEAR / (FAR - NEAR)
    matrix[3, 2] = -1
    return matrix.T.ravel().tolist()


class SceneRenderer(contextlib.AbstractContextManager):
    """One scene, built in its own PyBullet world for as long as the `with` block lasts.

    bodies: PyBullet ids of "room", "furniture" and "goal".
    """

    def __init__(self, scene: Scene):
        self.scene = scene
        self.bodies: dict[str, int] = {}
        self._client = pybullet.connect(pybullet.DIRECT)
        if self._client < 0:
            raise InputError("PyBullet: expected a free DIRECT connection, got none (too many are open)")
        meshes, atlas = scene_meshes(scene)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "atlas.bmp"
            path.write_bytes(_bmp(atlas))
            texture = pybullet.loadTexture(str(path), physicsClientId=self._client)
        for name, mesh in meshes.items():
            vertices, normals, uv, triangles = mesh.arrays(len(atlas))
            shape = pybullet.createVisualShape(
                pybullet.GEOM_MESH,
                vertices=vertices.tolist(),
                normals=normals.tolist(),
                uvs=uv.tolist(),
                indices=triangles.ravel().tolist(),
                rgbaColor=[1, 1, 1, 1],
                physicsClientId=self._client,
            )
            body = pybullet.createMultiBody(0, -1, shape, physicsClientId=self._client)
            pybullet.changeVisualShape(body, -1, textureUniqueId=texture, physicsClientId=self._client)
            self.bodies[name] = body

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the PyBullet world; a second call does nothing."""
        if self._client >= 0:
            pybullet.disconnect(physicsClientId=self._client)
            self._client = -1

    def render(self, c2w: np.ndarray, intrinsics: np.ndarray, width: int, height: int) -> np.ndarray:
        """rgb uint8 (height, width, 3) from c2w (4, 4) in room axes, averaged over the `SAMPLES` of each pixel."""
        total = np.full((height, width, 3), len(SAMPLES) // 2, np.uint16)  # so that the division rounds
        for x, y in SAMPLES:
            shifted = intrinsics + np.array([0, 0, 0.5 - x, 0.5 - y])
            total += self._image(c2w, shifted, width, height)[0]
        return (total // len(SAMPLES)).astype(np.uint8)

    def depth(self, c2w: np.ndarray, intrinsics: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
        """z-depth float32 metres (height, width) at the pixels' centres, and body ids int32 (-1: nothing)."""
        _, buffer, bodies = self._image(c2w, intrinsics, width, height)
        return (NEAR * FAR / (FAR - (FAR - NEAR) * buffer)).astype(np.float32), bodies

    def _image(
        self, c2w: np.ndarray, intrinsics: np.ndarray, width: int, height: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self._client < 0:
            raise InputError("SceneRenderer: expected an open renderer, got one that is closed")
        _, _, rgba, depth, bodies = pybullet.getCameraImage(
            width,
            height,
            view_matrix(c2w),
            projection_matrix(intrinsics, width, height),
            lightDirection=self.scene.light,
            lightColor=self.scene.light_colour,
            lightAmbientCoeff=AMBIENT,
            lightDiffuseCoeff=DIFFUSE,
            lightSpecularCoeff=0.0,
            shadow=0,
            renderer=pybullet.ER_TINY_RENDERER,
            physicsClientId=self._client,
        )
        rgba = np.asarray(rgba, np.uint8).reshape(height, width, 4)
        depth = np.asarray(depth, np.float64).reshape(height, width)
        return rgba[..., :3], depth, np.asarray(bodies, np.int32).reshape(height, width)


def _bmp(image: np.ndarray) -> bytes:
    """An uncompressed 24-bit bitmap of uint8 (h, w, 3): PyBullet reads textures from files only."""
    h, w = image.shape[:2]
    rows = np.zeros((h, (3 * w + 3) // 4 * 4), np.uint8)  # rows are padded to four bytes, lowest row first
    rows[:, : 3 * w] = image[::-1, :, ::-1].reshape(h, 3 * w)
    header = struct.pack("<2sIHHI", b"BM", 54 + rows.size, 0, 0, 54)
    return header + struct.pack("<IiiHHIIiiII", 40, w, h, 1, 24, 0, rows.size, 2835, 2835, 0, 0) + rows.tobytes()
