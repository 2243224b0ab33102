"""What a live world shows the transformer: the camera of its start latent, and that of the chunk to come.

Of whole clips, world_model.camera makes the same tensors.

Shapes: B worlds, T latent frames of a chunk, Y rows, X columns of latent cells.
"""

import torch
from torch import Tensor

from world_model.camera import camera_rows, chunk_plucker, plucker_rays
from world_model.geometry import invert_rigid


def start_camera(
    intrinsics: Tensor, grid: tuple[int, int], stride: int, seen: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`camera` (B, 1, 20) and `plucker` (B, 6*stride, 1, Y, X) of the start latent. intrinsics (B, 4) in cells.

    seen (B, stride, 4, 4): the poses of raw frames 0..stride-1, which the released weights look at; default frame 0,
    held.
    """
    pose = torch.eye(4, device=intrinsics.device).expand(len(intrinsics), 1, 4, 4)
    seen = pose.expand(-1, stride, -1, -1) if seen is None else seen
    with exactly(intrinsics.device):
        rays = plucker_rays(seen, intrinsics[:, None].expand(-1, stride, -1), grid)
    return camera_rows(pose, intrinsics[:, None]), chunk_plucker(rays, stride)


def chunk_camera(
    before: Tensor, poses: Tensor, intrinsics: Tensor, grid: tuple[int, int], stride: int, reference: str
) -> tuple[Tensor, Tensor]:
    """`camera` (B, T, 20) and `plucker` (B, 6*stride, T, Y, X) of T later latents.

    before (B, 4, 4): the pose of the frame before them; poses (B, T*stride, 4, 4); intrinsics (B, 4) in cells.
    reference "start": rays in the start frame's axes; "previous": in those of the last frame before each latent.
    """
    ends = poses[:, stride - 1 :: stride]  # (B, T, 4, 4)
    seen = poses
    with exactly(intrinsics.device):
        if reference == "previous":
            origin = torch.cat([before[:, None], ends[:, :-1]], 1)
            seen = invert_rigid(origin).repeat_interleave(stride, 1) @ poses
        rays = plucker_rays(seen, intrinsics[:, None].expand(-1, poses.shape[1], -1), grid)
    return camera_rows(ends, intrinsics[:, None]), chunk_plucker(rays, stride)


def exactly(device: torch.device) -> torch.autocast:
    """Without autocast: training in bfloat16 would round poses, and see other cameras than play does."""
    return torch.autocast(device.type, enabled=False)
