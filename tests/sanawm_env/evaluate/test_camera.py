"""Recovered camera motion, on a scene whose every pixel is known: a textured wall seen through a pinhole."""

import math

import numpy as np
import pytest
import torch

from sanawm_env.actions import integrate_twist
from sanawm_env.evaluate.camera import camera_error, recover_motion, recover_translation
from world_model.errors import InputError

SIDE, FPS = 96, 16.0
LENS = np.array([70.0, 70.0, 48.0, 48.0], np.float32)


def wall(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Brightness of a smooth texture at metres of the wall."""
    waves = [(2.1, 0.7, 0.3), (-1.3, 2.9, 1.1), (4.3, 3.1, 2.0), (5.9, -4.7, 0.5), (1.7, 6.1, 4.0)]
    return 127 + sum(22 * np.sin(a * x + b * y + c) for a, b, c in waves)


def film(twist: np.ndarray, frames: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (T, H, W, 3) and depth (T, H, W) of a slanted wall three metres ahead."""
    poses = [np.eye(4), *integrate_twist(np.eye(4), twist, frames - 1, FPS)]
    row, column = np.mgrid[:SIDE, :SIDE] + 0.5
    rays = np.stack([(column - LENS[2]) / LENS[0], (row - LENS[3]) / LENS[1], np.ones_like(row)], -1)
    normal, far = np.array([0.35, -0.2, 1.0]), 3.0
    pictures, depths = [], []
    for pose in poses:
        world = rays @ pose[:3, :3].T
        depth = (far - normal @ pose[:3, 3]) / (world @ normal)
        points = world * depth[..., None] + pose[:3, 3]
        pictures.append(np.repeat(wall(points[..., 0], points[..., 1])[..., None], 3, -1))
        depths.append(depth)
    return np.stack(pictures).round().clip(0, 255).astype(np.uint8), np.stack(depths).astype(np.float32)


@pytest.mark.parametrize("twist", [(0.4, 0, 0, 0, 0, 0), (0, -0.3, 0.5, 0, 0, 0), (0.2, 0, 0.4, 0.1, -0.3, 0.1)])
def test_movement_is_recovered_in_metres(twist: tuple[float, ...]) -> None:
    commanded = torch.tensor(twist, dtype=torch.float64)
    frames, depth = film(commanded.numpy())
    turns = (commanded[3:] / FPS).expand(len(frames) - 1, 3)
    moves = recover_translation(torch.from_numpy(frames), torch.from_numpy(depth), torch.from_numpy(LENS), turns)
    assert (moves * FPS).mean(0).tolist() == pytest.approx(twist[:3], abs=0.04)  # m/s


def test_a_turn_is_no_movement() -> None:
    frames, depth = film(np.array([0, 0, 0, 0.1, 0.4, 0]))
    recovered = recover_motion(frames, depth, LENS, FPS)
    assert recovered.shape == (4, 6)
    assert recovered.mean(0) == pytest.approx([0, 0, 0, 0.1, 0.4, 0], abs=0.07)  # m/s and rad/s
    with pytest.raises(InputError, match="depth: expected"):
        recover_motion(frames, depth[:2], LENS, FPS)


def test_errors_by_hand() -> None:
    commanded = np.array([[0, 0, 1.0, 0, 0.5, 0], [0, 0, 0, 0, 0.5, 0]])
    recovered = np.array([[0.5, 0, 0.5, 0, 0.25, 0], [0, 0, 0, 0, 0.5, 0]])
    error = camera_error(recovered, commanded)
    assert error.turn_gain == pytest.approx(0.75)
    assert error.turn_error == pytest.approx(math.degrees(0.125))
    assert error.move_gain == pytest.approx(0.5)
    assert error.move_error == pytest.approx(math.sqrt(0.5) / 2)
    assert error.direction_error == pytest.approx(45)  # of the one pair that was to move
    still = camera_error(np.zeros((2, 6)), np.zeros((2, 6)))
    assert math.isnan(still.turn_gain)
    assert math.isnan(still.direction_error)
    assert still.move_error == 0
