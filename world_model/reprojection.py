"""What a start frame says about later frames: which of their pixels it saw, and where a pure rotation puts its own.

Poses are camera-to-world relative to the start frame (OpenCV axes, metres), depth is in metres along z, a pixel's
centre lies at its index + 0.5. Shapes: T frames of H x W pixels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from world_model.geometry import invert_rigid

RELATIVE_TOLERANCE, TOLERANCE = 0.05, 0.05  # of the start frame's depth, and metres


def seen_by_start(depth: Tensor, c2w: Tensor, intrinsics: Tensor) -> Tensor:
    """Pixels that the start frame saw, (T, H, W) bool.

    depth (T, H, W), c2w (T, 4, 4) with frame 0 the start, intrinsics (T, 4). A pixel's true point is projected into
    the start camera: it was seen if it falls inside the frame and the start frame's depth there (nearest pixel)
    agrees with its own to 5% + 5 cm; else something stood before it.
    """
    height, width = depth.shape[1:]
    points = pixel_rays_z1(intrinsics, height, width) * depth.float()[..., None]  # (T, H, W, 3)
    to_start = (invert_rigid(c2w[:1]) @ c2w)[:, None, None]  # (T, 1, 1, 4, 4)
    points = (to_start[..., :3, :3] @ points[..., None])[..., 0] + to_start[..., :3, 3]
    z = points[..., 2]
    pixels = points[..., :2] / z.clamp_min(1e-6)[..., None] * intrinsics[0, :2] + intrinsics[0, 2:]
    x, y = pixels.floor().long().unbind(-1)
    inside = (z > 0) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    start = depth[0].float()[y.clamp(0, height - 1), x.clamp(0, width - 1)]
    return inside & ((start - z).abs() < RELATIVE_TOLERANCE * start + TOLERANCE)


def warp_start(start: Tensor, c2w: Tensor, intrinsics: Tensor) -> Tensor:
    """The start frame (H, W, 3) as cameras c2w (T, 4, 4) would see it if they only turned: (T, H, W, 3) float32.

    Each pixel takes the start frame's value (bilinear) at K0 R K^-1 of itself, and where that lies outside the frame
    the nearest border pixel's. intrinsics (T, 4), the first row the start frame's.
    """
    height, width = start.shape[:2]
    rotation = (invert_rigid(c2w[:1]) @ c2w)[:, None, None, :3, :3]
    rays = (rotation @ pixel_rays_z1(intrinsics, height, width)[..., None])[..., 0]  # (T, H, W, 3)
    # Rays that point backwards keep their direction and land far outside, hence on the border.
    pixels = rays[..., :2] / rays[..., 2:].clamp_min(1e-3) * intrinsics[0, :2] + intrinsics[0, 2:]
    grid = pixels / pixels.new_tensor([width, height]) * 2 - 1
    picture = start.float().permute(2, 0, 1)[None].expand(len(c2w), -1, -1, -1)
    warped = F.grid_sample(picture, grid, padding_mode="border", align_corners=False)
    return warped.permute(0, 2, 3, 1)


def pixel_rays_z1(intrinsics: Tensor, height: int, width: int) -> Tensor:
    """Rays through pixel centres with z = 1: intrinsics (T, 4) -> (T, H, W, 3)."""
    fx, fy, cx, cy = (i[:, None, None] for i in intrinsics.unbind(-1))
    x = (torch.arange(width, device=intrinsics.device) + 0.5)[None, None]
    y = (torch.arange(height, device=intrinsics.device) + 0.5)[None, :, None]
    x, y = torch.broadcast_tensors((x - cx) / fx, (y - cy) / fy)
    return torch.stack([x, y, torch.ones_like(x)], -1)
