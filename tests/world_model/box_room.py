"""A room that tests can render exactly, a textured box with a textured block in it, by ray casting in numpy; and a
world model small enough to be played in it."""

import dataclasses

import numpy as np

from world_model.config import TokenizerConfig, WorldConfig
from world_model.presets import nano
from world_model.train.data.episode import Episode

ROOM = np.array([[-3.0, -1.3, -2.5], [3.0, 1.3, 4.0]])  # lower and upper corner in frame 0's camera axes, metres
BLOCK = np.array([[-0.5, 0.1, 1.8], [0.6, 1.3, 2.5]])
FPS = 16.0


def lens(size: int, fov: float = 70.0) -> np.ndarray:
    """fx, fy, cx, cy (4,) float32 of a centred camera of size x size pixels; fov in degrees."""
    focal = size / 2 / np.tan(np.radians(fov) / 2)
    return np.array([focal, focal, size / 2, size / 2], dtype=np.float32)


def rotation(vector: np.ndarray) -> np.ndarray:
    """(3, 3) of a rotation vector (3,) in radians (Rodrigues)."""
    angle = np.linalg.norm(vector)
    x, y, z = vector / max(angle, 1e-12)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def path(twist: list[float], frames: int) -> np.ndarray:
    """Poses (frames, 4, 4) float32 of a constant body twist [vx, vy, vz, wx, wy, wz] in m/s and deg/s."""
    step = np.eye(4)
    step[:3, :3] = rotation(np.radians(twist[3:]) / FPS)
    step[:3, 3] = np.array(twist[:3]) / FPS
    poses = [np.eye(4)]
    for _ in range(frames - 1):
        poses.append(poses[-1] @ step)
    return np.stack(poses).astype(np.float32)


def render(poses: np.ndarray, intrinsics: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames (T, size, size, 3) uint8, four rays a pixel, and depth (T, size, size) float64 at pixel centres."""
    frames, depths = [], []
    for pose in poses.astype(np.float64):
        colours = [cast(pose, intrinsics, size, dx, dy)[0] for dx in (0.25, 0.75) for dy in (0.25, 0.75)]
        frames.append(np.mean(colours, axis=0).round().astype(np.uint8))
        depths.append(cast(pose, intrinsics, size, 0.5, 0.5)[1])
    return np.stack(frames), np.stack(depths)


def cast(pose: np.ndarray, intrinsics: np.ndarray, size: int, dx: float, dy: float) -> tuple[np.ndarray, np.ndarray]:
    """Colours (size, size, 3) and depth along z (size, size) of one ray a pixel, through (x + dx, y + dy)."""
    fx, fy, cx, cy = intrinsics
    y, x = np.mgrid[:size, :size].astype(float)
    rays = np.stack([(x + dx - cx) / fx, (y + dy - cy) / fy, np.ones_like(x)], -1)
    direction, origin = rays @ pose[:3, :3].T, pose[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        room = ((ROOM[:, None, None] - origin) / direction).max(0)  # (size, size, 3): leaving each slab
        slabs = np.sort((BLOCK[:, None, None] - origin) / direction, axis=0)
    depth, face = room.min(-1), room.argmin(-1)
    enter, leave = slabs[0].max(-1), slabs[1].min(-1)
    hit = (enter > 0) & (enter < leave) & (enter < depth)
    depth, face = np.where(hit, enter, depth), np.where(hit, slabs[0].argmax(-1), face)
    return paint(origin + depth[..., None] * direction, face, hit), depth


def paint(points: np.ndarray, face: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Colours of points: smooth waves and tiles with hard edges, another pattern on each face and on the block."""
    u = np.where(face == 0, points[..., 2], points[..., 0])
    v = np.where(face == 1, points[..., 2], points[..., 1])
    side = np.sign(np.take_along_axis(points, face[..., None], -1)[..., 0])
    phase = 1.7 * face + 0.9 * side + 2.3 * block
    tiles = ((np.floor(1.6 * u + phase) + np.floor(1.9 * v)) % 2) * 46
    waves = 30 * np.sin(3.1 * u + phase) * np.cos(2.3 * v + phase) + 22 * np.sin(5.3 * v + 1.3 * u + phase)
    tint = np.stack([20 * np.sin(phase), 20 * np.cos(phase), 20 * np.sin(2 * phase)], -1)
    return np.clip(128 + (tiles - 23 + waves)[..., None] + tint, 0, 255)


def episode(kind: str, twist: list[float], *, frames: int = 65, size: int = 128) -> Episode:
    """A test episode of this room along a constant twist."""
    poses, intrinsics = path(twist, frames), lens(size)
    pictures, depth = render(poses, intrinsics, size)
    return Episode(
        frames=pictures,
        c2w=poses,
        intrinsics=np.tile(intrinsics, (frames, 1)),
        caption="a box",
        fps=FPS,
        depth=depth.astype(np.float16),
        meta={"path": kind},
    )


def small_nano(size: int, depth: int = 1) -> WorldConfig:
    """Nano for pictures of size x size pixels, with next to no weights."""
    config = nano(("a", "box"))
    transformer = dataclasses.replace(config.transformer, depth=depth, heads=depth)
    tokenizer = TokenizerConfig(height=size, width=size, base_width=16)
    return dataclasses.replace(config, transformer=transformer, tokenizer=tokenizer)
