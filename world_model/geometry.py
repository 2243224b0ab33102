"""SE(3), pinhole rays, UCPE ray transforms and RoPE: the geometry that the transformer's features live in.

All of it is float32 (angles float64) whatever the activations are: a cast of a pose or a rotation to bfloat16
would be visible in every frame (stage-1 architecture, 17.1 and 17.9).

Shapes: B worlds, T latent frames, Y rows, X columns, S = Y*X, N = T*S tokens, H heads, D head channels.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Rope:
    """Rotations of interleaved channel pairs, one angle a pair: (B, N, 1, D/2) each, float32."""

    cos: Tensor
    sin: Tensor

    def inverse(self) -> "Rope":
        return Rope(self.cos, -self.sin)


@dataclass(frozen=True)
class Rays:
    """What the camera branch multiplies its features with: row vectors times these, (B, N, K, K) float32."""

    query: Tensor
    key_value: Tensor
    output: Tensor
    rope: Rope


def invert_rigid(pose: Tensor) -> Tensor:
    """Inverse of rigid transforms, (..., 4, 4)."""
    rotation = pose[..., :3, :3].mT
    return rigid(rotation, -rotation @ pose[..., :3, 3:])


def rigid(rotation: Tensor, translation: Tensor) -> Tensor:
    """(..., 3, 3), (..., 3, 1) -> (..., 4, 4)."""
    bottom = rotation.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*rotation.shape[:-2], 1, 4)
    return torch.cat([torch.cat([rotation, translation], -1), bottom], -2)


def pixel_rays(intrinsics: Tensor, rows: int, columns: int) -> Tensor:
    """Unit rays in camera axes through integer cells: (..., 4) fx, fy, cx, cy in cells -> (..., Y, X, 3)."""
    fx, fy, cx, cy = (i[..., None, None] for i in intrinsics.unbind(-1))
    y = torch.arange(rows, device=intrinsics.device, dtype=intrinsics.dtype)[:, None]
    x = torch.arange(columns, device=intrinsics.device, dtype=intrinsics.dtype)[None]
    x, y = torch.broadcast_tensors((x - cx) / fx, (y - cy) / fy)
    return F.normalize(torch.stack([x, y, torch.ones_like(x)], -1), dim=-1)


def ray_from_world(camera: Tensor, rows: int, columns: int) -> Tensor:
    """Transforms from the world into each cell's own ray frame (stage-1 architecture, 8).

    camera (B, T, 20): row-major camera-to-world matrix, then fx, fy, cx, cy in cells -> (B, T, Y, X, 4, 4).
    """
    pose = camera[..., :16].unflatten(-1, (4, 4))[..., None, None, :, :]
    rotation, centre = pose[..., :3, :3], pose[..., :3, 3:]
    z = (rotation @ pixel_rays(camera[..., 16:], rows, columns)[..., None])[..., 0]
    z = F.normalize(z, dim=-1, eps=1e-6)
    x = F.normalize(torch.linalg.cross(rotation[..., 1].expand_as(z), z), dim=-1, eps=1e-6)
    y = F.normalize(torch.linalg.cross(z, x), dim=-1, eps=1e-6)
    to_ray = torch.stack([x, y, z], -2)
    return rigid(to_ray, -(to_ray @ centre))


def camera_rays(camera: Tensor, rope: Rope, rows: int, columns: int) -> Rays:
    """The UCPE matrices of every token; `rope` turns the other half of the channels."""
    with torch.autocast(camera.device.type, enabled=False):
        transform = ray_from_world(camera.float(), rows, columns).flatten(1, 3)  # (B, N, 4, 4)
        several = torch.eye(math.gcd(rope.cos.shape[-1] // 2, 4), device=camera.device)  # 4x4 products are slow
        transform, inverse = (torch.kron(several, m) for m in (transform, invert_rigid(transform)))  # (B, N, K, K)
    return Rays(transform, inverse.mT.contiguous(), transform.mT.contiguous(), rope)


def ropes(frame_index: Tensor, rows: int, columns: int, head_dim: int) -> tuple[Rope, Rope]:
    """RoPE of the main branch (D/2 angles) and of the camera branch (D/4), (B, T) latent indices -> (B, N, 1, .).

    Frequencies are analytic, so no table ends. The camera branch turns half of the channels with the first
    frequencies of the whole head, not with those of a narrower one (stage-1 architecture, 5).
    """
    space, half_space = head_dim // 6, head_dim // 2 // 6  # angles a spatial axis
    time, half_time = head_dim // 2 - 2 * space, head_dim // 4 - 2 * half_space
    device = frame_index.device
    grid = (*frame_index.shape, rows, columns)
    t = _angles(frame_index, time)[:, :, None, None].expand(*grid, -1)
    y = _angles(torch.arange(rows, device=device), space)[None, None, :, None].expand(*grid, -1)
    x = _angles(torch.arange(columns, device=device), space)[None, None, None].expand(*grid, -1)

    def rope(*parts: Tensor) -> Rope:
        angle = torch.cat(parts, -1).flatten(1, 3)[:, :, None]  # (B, N, 1, angles)
        return Rope(angle.cos().float(), angle.sin().float())

    return rope(t, y, x), rope(t[..., :half_time], y[..., :half_space], x[..., :half_space])


def _angles(position: Tensor, count: int, theta: float = 10000.0) -> Tensor:
    exponent = torch.arange(count, device=position.device, dtype=torch.float64) / count
    return position.double()[..., None] * theta**-exponent


def rotate(x: Tensor, rope: Rope) -> Tensor:
    """RoPE on (B, N, H, D). Complex only here: no cast to another dtype can reach the rotation."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * torch.complex(rope.cos, rope.sin)).flatten(-2).type_as(x)


def project(x: Tensor, matrix: Tensor, rope: Rope) -> Tensor:
    """UCPE on (B, N, H, D): half of the channels, K at a time, times `matrix`, the other half by RoPE."""
    grouped, turned = x.chunk(2, dim=-1)
    product = grouped.reshape(*x.shape[:2], -1, matrix.shape[-1]).float() @ matrix
    return torch.cat([product.view(grouped.shape).type_as(x), rotate(turned, rope)], -1)
