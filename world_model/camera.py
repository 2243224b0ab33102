"""Camera paths as the transformer reads them: one `camera` row and a stack of Plücker rays a latent frame.

Poses are camera-to-world, OpenCV axes (x right, y down, z forward), metres, relative to the start frame.
Latent 0 stands for raw frame 0; latent k > 0 for the frames stride*k - stride + 1 .. stride*k.

Shapes: B worlds, T latent frames, F raw frames, Y rows, X columns of latent cells.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from world_model.geometry import invert_rigid, pixel_rays


def relative_to_first(poses: Tensor) -> Tensor:
    """(B, F, 4, 4) absolute camera-to-world -> the same, seen from each world's first camera."""
    relative = invert_rigid(poses[:, :1]) @ poses
    relative[:, 0] = torch.eye(4)
    return relative


def cell_intrinsics(intrinsics: Tensor, size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """fx, fy, cx, cy in pixels of a (height, width) frame -> in cells of the (rows, columns) grid."""
    (height, width), (rows, columns) = size, grid
    return intrinsics * intrinsics.new_tensor([columns / width, rows / height, columns / width, rows / height])


def camera_rows(poses: Tensor, intrinsics: Tensor) -> Tensor:
    """One pose and cell intrinsics a latent frame: (B, T, 4, 4), (B, T, 4) -> (B, T, 20) (architecture, 7.4)."""
    return torch.cat([poses.flatten(-2), intrinsics.expand(*poses.shape[:2], 4)], -1)


def plucker_rays(poses: Tensor, intrinsics: Tensor, grid: tuple[int, int]) -> Tensor:
    """Direction and moment of the ray through each cell: (B, F, 4, 4), (B, F, 4) -> (B, F, 6, Y, X)."""
    rays = pixel_rays(intrinsics, *grid)  # (B, F, Y, X, 3)
    rotation, centre = poses[:, :, None, None, :3, :3], poses[:, :, None, None, :3, 3]
    direction = F.normalize((rotation @ rays[..., None])[..., 0], dim=-1)
    moment = torch.linalg.cross(centre.expand_as(direction), direction)
    return torch.cat([direction, moment], -1).permute(0, 1, 4, 2, 3)


def pack_plucker(rays: Tensor, stride: int) -> Tensor:
    """A whole clip's rays, `stride` raw frames a latent: (B, F, 6, Y, X) -> (B, 6*stride, T, Y, X).

    Latent k starts at raw frame max(0, stride*k - stride + 1), so latents 0 and 1 share frames; frames missing at
    the end repeat the last one (architecture, 7.6).
    """
    latents = (rays.shape[1] - 1) // stride + 1
    starts = (torch.arange(latents) * stride - stride + 1).clamp_min(0)
    frames = (starts[:, None] + torch.arange(stride)).clamp_max(rays.shape[1] - 1)  # (T, stride)
    return rays[:, frames.to(rays.device)].flatten(2, 3).transpose(1, 2)


def chunk_plucker(rays: Tensor, stride: int) -> Tensor:
    """Rays of a later chunk, whose raw frames are all its own: (B, T*stride, 6, Y, X) -> (B, 6*stride, T, Y, X)."""
    return rays.unflatten(1, (-1, stride)).flatten(2, 3).transpose(1, 2)
