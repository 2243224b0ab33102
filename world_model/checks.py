"""What nobody should have to debug inside a network: poses, lenses and seeds are checked where they come in."""

import operator
from collections.abc import Sequence

import torch
from torch import Tensor

from world_model.errors import InputError


def check_poses(poses: Tensor) -> None:
    """Raises InputError unless every (..., 4, 4) matrix is a finite rigid transform (to 1e-3)."""
    if not torch.isfinite(poses).all():
        raise InputError("poses: expected finite numbers, got NaN or infinity")
    rotation = poses[..., :3, :3]
    error = (rotation.mT @ rotation - torch.eye(3, device=poses.device)).abs().amax()
    bottom = (poses[..., 3, :] - poses.new_tensor([0, 0, 0, 1])).abs().amax()
    if error > 1e-3 or bottom > 1e-6 or (torch.linalg.det(rotation) < 0).any():
        raise InputError(
            "poses: expected rigid transforms (rotation with determinant 1, last row 0 0 0 1), "
            f"got an orthogonality error of {error:.2g} and a last row off by {bottom:.2g}"
        )


def check_intrinsics(intrinsics: Tensor) -> None:
    """Raises InputError unless (..., 4) holds finite values with positive focal lengths."""
    if not torch.isfinite(intrinsics).all() or (intrinsics[..., :2] <= 0).any():
        raise InputError(
            f"intrinsics: expected finite fx, fy, cx, cy with positive focal lengths, got {intrinsics.tolist()}"
        )


def check_seeds(seeds: Sequence[int], count: int) -> Tensor:
    """(count,) int64. Raises InputError for another number of seeds, and for what is no 64-bit integer."""
    if len(seeds) != count:
        raise InputError(f"seeds: expected {count}, one a world, got {len(seeds)}")
    try:
        return torch.tensor([operator.index(seed) for seed in seeds], dtype=torch.int64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"seeds: expected 64-bit integers, got {list(seeds)}: {error}") from error
