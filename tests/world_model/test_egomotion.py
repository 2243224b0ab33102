"""The rotation estimate on a room whose camera path is known exactly."""

import math

import pytest
import torch
from torch import Tensor

from tests.world_model.box_room import FPS, lens, path, render
from world_model.egomotion import align_rotation, blur, estimate_rotation, exp_rotation, log_rotation
from world_model.errors import InputError
from world_model.image_metrics import luma

SIZE = 96


def film(twist: list[float], frames: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    """Frames, lens, and the true rotation vectors of a camera that moves with one twist."""
    poses = path(twist, frames)
    pictures, _ = render(poses, lens(SIZE), SIZE)
    true = torch.tensor(twist[3:], dtype=torch.float64).deg2rad().expand(frames - 1, 3) / FPS
    return torch.from_numpy(pictures), torch.from_numpy(lens(SIZE)), true


def per_second(error: Tensor) -> float:
    """Mean error over frames, as a speed in deg/s."""
    return float(error.mean(0).norm().rad2deg() * FPS)


@pytest.mark.parametrize("twist", [[0, 0, 0, 0, 30, 0], [0, 0, 0, -30, 0, 0], [0, 0, 0, 0, 0, 20]])
def test_pure_rotation_is_recovered_within_five_percent(twist: list[float]) -> None:
    frames, intrinsics, true = film(twist)
    found = estimate_rotation(frames, intrinsics)
    gain = float((found * true).sum() / true.square().sum())
    assert gain == pytest.approx(1, abs=0.05)
    assert per_second(found - true) < 0.05 * true.norm(dim=-1).mean().rad2deg() * FPS


def test_rotation_is_recovered_while_the_camera_also_moves() -> None:
    frames, intrinsics, true = film([0.3, 0.1, 0.3, 4, -24, 3])
    assert per_second(estimate_rotation(frames, intrinsics) - true) < 0.1 * 24.5


def test_parallax_hardly_passes_for_rotation() -> None:
    frames, intrinsics, true = film([0.5, 0, 0, 0, 0, 0])
    smooth = blur(luma(frames.float())[:, None] / 255)
    start = torch.eye(3).repeat(len(frames) - 1, 1, 1)
    naive = log_rotation(align_rotation(smooth[:-1], smooth[1:], start, intrinsics).double())
    assert per_second(naive - true) > 5, "the test's camera should move enough to mislead a rotation alone"
    assert per_second(estimate_rotation(frames, intrinsics) - true) < 0.35 * per_second(naive - true)


def test_a_still_camera_with_noise_and_flicker_stands_still() -> None:
    frames, intrinsics, _ = film([0, 0, 0, 0, 0, 0], frames=5)
    generator = torch.Generator().manual_seed(0)
    noise = 2 * torch.randn(frames.shape, generator=generator) + torch.tensor([0, 5, -4, 3, 0.0])[:, None, None, None]
    flickering = (frames + noise).round().clamp(0, 255).to(torch.uint8)
    assert estimate_rotation(flickering, intrinsics).norm(dim=-1).mean().rad2deg() * FPS < 1.0
    assert estimate_rotation(frames, intrinsics).norm(dim=-1).max().rad2deg() * FPS < 1e-3


def test_blank_frames_turn_nowhere() -> None:
    blank = torch.full((3, 64, 64, 3), 90, dtype=torch.uint8)
    assert estimate_rotation(blank, torch.from_numpy(lens(64))).abs().max() == 0


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, 0.3, 2.0, 3.1])
def test_exponential_and_logarithm_are_inverse(angle: float) -> None:
    axis = torch.tensor([0.48, -0.6, 0.64], dtype=torch.float64)
    matrix = exp_rotation(angle * axis)
    assert torch.allclose(matrix @ matrix.mT, torch.eye(3, dtype=torch.float64), atol=1e-12)
    assert math.isclose(float(matrix.trace()), 1 + 2 * math.cos(angle), abs_tol=1e-12)
    assert torch.allclose(log_rotation(matrix), angle * axis, atol=1e-9)


@pytest.mark.parametrize(
    ("frames", "intrinsics", "message"),
    [
        (torch.zeros(4, 64, 64, 3), torch.ones(4), "uint8"),
        (torch.zeros(1, 64, 64, 3, dtype=torch.uint8), torch.ones(4), "T >= 2"),
        (torch.zeros(4, 24, 64, 3, dtype=torch.uint8), torch.ones(4), "at least 32 pixels"),
        (torch.zeros(4, 64, 64, 3, dtype=torch.uint8), torch.ones(4, 4), "fx, fy, cx, cy"),
    ],
)
def test_bad_input_is_named(frames: Tensor, intrinsics: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        estimate_rotation(frames, intrinsics)
