"""How a camera turned, read from its video alone: the measure of whether a generated world obeys rotation commands.

Neighbouring frames are aligned directly on their pixels, in three stages: (1) a rotation, coarse to fine, by
Gauss-Newton with robust weights; (2) the displacement of every patch that is left over, by Lucas-Kanade; (3) a
rotation, a direction of translation and one inverse depth a patch, fitted to these displacements together, so that
parallax does not pass for rotation. In (3) the inverse depths are eliminated in closed form and the direction is
searched over the whole sphere: no local minimum to fall into (after Bruss and Horn, Passive navigation, 1983).
Needs neither depth nor training; its own error on true video belongs beside every figure that it gives.

Shapes: P pairs of neighbouring frames, H, W pixels, J, I rows and columns of patches, N = J*I, D directions.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from world_model.errors import InputError
from world_model.image_metrics import luma

COARSEST = 24  # pixels along the shorter side of the smallest picture
ROTATION_STEPS = 4  # Gauss-Newton steps a level
PATCH, PATCH_STRIDE = 16, 8  # pixels
PATCH_STEPS = 4
NOISE = 2.0 / 255  # of luma: below it nothing is an outlier
PATCH_SAMPLES = 16.0  # independent pixels of a patch, after blurring and overlap
PARALLAX = 0.03  # prior spread of a patch's displacement by translation, in focal lengths a frame
DIRECTIONS = 64  # over the sphere, in the first rounds
NARROW = 16  # in a cone, in the last ones
CONES = (0.0, 0.3, 0.12, 0.0)  # after each round of fitting: radius of the next one's cone; 0 changes nothing
AHEAD_PASSES = 2
PAIRS_AT_ONCE = 8  # what stays in a cache is twice as fast


@torch.no_grad()
def estimate_rotation(frames: Tensor, intrinsics: Tensor) -> Tensor:
    """Rotation of the camera between neighbouring frames, (T - 1, 3) float64 on the CPU.

    frames (T, H, W, 3) uint8; intrinsics (4,) fx, fy, cx, cy in pixels, centres at index + 0.5. Rotation vectors in
    radians a frame, in camera axes (x right, y down, z forward): frame k + 1's pose is frame k's times exp(vector).
    Raises InputError.
    """
    if frames.dim() != 4 or frames.shape[-1] != 3 or frames.dtype != torch.uint8 or len(frames) < 2:
        raise InputError(f"frames: expected uint8 (T, H, W, 3), T >= 2, got {frames.dtype} {tuple(frames.shape)}")
    if min(frames.shape[1:3]) < 2 * PATCH:
        raise InputError(f"frames: expected at least {2 * PATCH} pixels a side, got {tuple(frames.shape[1:3])}")
    if intrinsics.shape != (4,):
        raise InputError(f"intrinsics: expected (4,) fx, fy, cx, cy, got {tuple(intrinsics.shape)}")
    levels = [luma(frames.cpu().float())[:, None] / 255]  # (T, 1, H, W)
    while min(levels[-1].shape[-2:]) // 2 >= COARSEST:
        levels.append(F.avg_pool2d(levels[-1], 2))
    chunks = [[part[i : i + PAIRS_AT_ONCE + 1] for part in levels] for i in range(0, len(frames) - 1, PAIRS_AT_ONCE)]
    return torch.cat([chunk_rotation(chunk, intrinsics.cpu().float()) for chunk in chunks])


def chunk_rotation(levels: list[Tensor], intrinsics: Tensor) -> Tensor:
    """Rotations (P, 3) between neighbours of a few frames, (P + 1, 1, H, W) luma in [0, 1] at full size, half ..."""
    rotation = torch.eye(3).repeat(len(levels[0]) - 1, 1, 1)
    for level, picture in reversed(list(enumerate(levels))):
        lens, smooth = intrinsics / 2**level, blur(picture)
        rotation = align_rotation(smooth[:-1], smooth[1:], rotation, lens)
    moved, information = patch_displacements(smooth[:-1], smooth[1:], rotation, lens)
    rest = fit_rotation(moved, information, patch_points(lens, *smooth.shape[-2:]))
    return log_rotation(exp_rotation(rest.double()) @ rotation.double())


def align_rotation(first: Tensor, second: Tensor, rotation: Tensor, lens: Tensor) -> Tensor:
    """Robust Gauss-Newton from rotations (P, 3, 3) between pictures (P, 1, H, W); slopes are the first picture's."""
    points = pixel_points(lens, *first.shape[-2:])  # (H, W, 2)
    slope = gradient(first) * lens[:2, None, None]  # (P, 2, H, W) a focal length
    flow = rotation_flow(points).permute(2, 3, 0, 1)  # (2, 3, H, W)
    jacobian = (slope[:, :1] * flow[0] + slope[:, 1:] * flow[1]).flatten(2)  # (P, 3, H*W)
    for _ in range(ROTATION_STEPS):
        warped, valid = warp(second, rotation, points.permute(2, 0, 1), lens)
        error = (warped - first).flatten(1)
        mean = (error.abs() * valid.flatten(1)).sum(1) / valid.sum((1, 2)).clamp_min(1)
        scale = (1.5 * mean).clamp_min(NOISE)[:, None]
        weighted = jacobian * (valid.flatten(1) / (1 + (error / scale).square()))[:, None]
        normal = weighted @ jacobian.mT + 1e-6 * torch.eye(3)
        step = torch.linalg.solve(normal, (weighted @ error[..., None])[..., 0])
        rotation = exp_rotation(-step) @ rotation
    return rotation


def patch_displacements(first: Tensor, second: Tensor, rotation: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
    """What moves beyond the rotation: displacements (P, N, 2) in focal lengths, their information (P, N, 2, 2).

    Each patch may change its brightness: the means of slope and error are taken out.
    """
    height, width = first.shape[-2:]
    points = pixel_points(lens, height, width).permute(2, 0, 1)  # (2, H, W)
    own = gradient(first)
    rows, columns = ((side - PATCH) // PATCH_STRIDE + 1 for side in (height, width))
    moved = first.new_zeros(len(first), 2, rows, columns)  # pixels
    for _ in range(PATCH_STEPS):
        shift = spread(moved, height, width) / lens[:2, None, None]
        warped, valid = warp(second, rotation, points + shift, lens)
        slope = (own + gradient(warped)) / 2
        terms = torch.cat([slope, warped - first], 1) * valid[:, None]  # (P, 3, H, W): gx, gy, error
        share = F.avg_pool2d(valid[:, None], PATCH, PATCH_STRIDE).clamp_min(1e-3)
        mean = F.avg_pool2d(terms, PATCH, PATCH_STRIDE) / share
        pairs = torch.stack([terms[:, i] * terms[:, j] for i, j in ((0, 0), (0, 1), (1, 1), (0, 2), (1, 2))], 1)
        xx, xy, yy, xe, ye = F.avg_pool2d(pairs, PATCH, PATCH_STRIDE).unbind(1)
        x, y, e = mean.unbind(1)
        share = share[:, 0]
        xx, xy, yy = xx - share * x * x, xy - share * x * y, yy - share * y * y
        xe, ye = xe - share * x * e, ye - share * y * e
        damping = 1e-5 + 0.02 * (xx + yy)
        det = (xx + damping) * (yy + damping) - xy * xy
        step = torch.stack([(yy + damping) * xe - xy * ye, (xx + damping) * ye - xy * xe], 1) / det[:, None]
        moved = moved - step.clamp(-1.5, 1.5)
    information = torch.stack([xx, xy, xy, yy], -1).flatten(1, 2).unflatten(-1, (2, 2))
    scale = PATCH_SAMPLES / NOISE**2 * lens[:2, None] * lens[:2]
    return moved.permute(0, 2, 3, 1).flatten(1, 2) / lens[:2], information * scale


def fit_rotation(moved: Tensor, information: Tensor, points: Tensor) -> Tensor:
    """Rotation vectors (P, 3) that explain patch displacements (P, N, 2) together with a translation.

    A patch at p is displaced by flow(p) w + a(p, t) s, with w the rotation, t a direction of translation and s > 0
    the patch's own inverse depth times the distance, of prior spread PARALLAX. Directions are first taken all over
    the sphere, then in ever narrower cones about the best one; patches that do not fit lose weight.
    """
    weight = moved.new_ones(moved.shape[:2])
    directions = sphere(DIRECTIONS).to(moved).expand(len(moved), -1, -1)
    for cone in CONES:
        form = MotionForm(moved, information * weight[..., None, None], points)
        rotation, best, cost = form.solve(directions)
        scale = cost.median(1, keepdim=True).values.clamp_min(1.0)
        weight = weight / (weight + cost / (4 * scale))
        if cone:
            around = torch.cat([torch.zeros(1, 3), sphere(NARROW)]).to(moved)
            directions = F.normalize(best[:, None] + cone * around, dim=-1)
    return rotation


class MotionForm:
    """The cost of a rotation and a direction of translation, as sums over patches of quadratic forms in both."""

    def __init__(self, moved: Tensor, information: Tensor, points: Tensor) -> None:
        turn = rotation_flow(points)  # (N, 2, 3)
        slide = torch.cat([-torch.eye(2).to(points).expand(len(points), 2, 2), points[..., None]], -1)  # (N, 2, 3)
        weighted = information @ moved[..., None]  # (P, N, 2, 1)
        self.turn_turn = turn.mT @ information @ turn  # (P, N, 3, 3)
        self.turn_slide = turn.mT @ information @ slide
        self.slide_slide = slide.mT @ information @ slide
        self.turn_moved = (turn.mT @ weighted)[..., 0]  # (P, N, 3)
        self.slide_moved = (slide.mT @ weighted)[..., 0]
        self.moved_moved = (moved[..., None] * weighted).sum((-1, -2))  # (P, N)

    def solve(self, directions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of directions (P, D, 3) the cheapest (P, 3), its rotation (P, 3), each patch's cost there (P, N).

        Given the direction, a patch's best s leaves a form in the rotation alone. A patch that would lie behind the
        camera (s < 0) goes without translation in the next pass.
        """
        pairs, patches = self.moved_moved.shape
        across = directions.mT  # (P, 3, D)
        squares = (directions[..., :, None] * directions[..., None, :]).flatten(2).mT  # (P, 9, D)
        stiffness = 1 / PARALLAX**2 + self.slide_slide.flatten(2) @ squares  # (P, N, D)
        target = self.slide_moved @ across
        loose = (self.turn_slide.flatten(1, 2) @ across).unflatten(1, (patches, 3))  # (P, N, 3, D)
        ahead = torch.ones_like(target)
        for _ in range(AHEAD_PASSES):
            pull = ahead / stiffness
            lost = loose * pull[:, :, None]
            normal = torch.einsum("pnkd,pnld->pdkl", lost, loose)
            right = (lost * target[:, :, None]).sum(1).mT  # (P, D, 3)
            normal = self.turn_turn.sum(1)[:, None] - normal
            right = self.turn_moved.sum(1)[:, None] - right
            eye = torch.eye(3).to(normal) * (1e-6 * normal.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None] + 1)
            rotation = torch.linalg.solve(normal + eye, right)  # (P, D, 3)
            reach = target - (loose * rotation.mT[:, None]).sum(2)  # (P, N, D)
            ahead = (reach > 0).to(reach)
        gained = ahead * reach.square() / stiffness
        total = (
            torch.einsum("pdk,pkl,pdl->pd", rotation, self.turn_turn.sum(1), rotation)
            - 2 * torch.einsum("pdk,pk->pd", rotation, self.turn_moved.sum(1))
            - gained.sum(1)
        )
        chosen, best = torch.arange(pairs), total.argmin(1)
        rotation, gained = rotation[chosen, best], gained[chosen, :, best]
        still = (rotation[:, None, None] @ self.turn_turn @ rotation[:, None, :, None])[..., 0, 0]
        cost = self.moved_moved + still - 2 * (self.turn_moved @ rotation[..., None])[..., 0] - gained
        return rotation, directions[chosen, best], cost.clamp_min(0)


def rotation_flow(points: Tensor) -> Tensor:
    """How points (..., 2) = x/z, y/z move as the camera turns by a small vector: (..., 2, 3)."""
    x, y = points.unbind(-1)
    one = torch.ones_like(x)
    return torch.stack([x * y, -one - x * x, y, one + y * y, -x * y, -x], -1).unflatten(-1, (2, 3))


def warp(picture: Tensor, rotation: Tensor, points: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures (P, 1, H, W) seen at points (2, H, W) or (P, 2, H, W) of before the camera turned; valid (P, H, W)."""
    height, width = picture.shape[-2:]
    size = lens.new_tensor([width, height])
    to_grid = torch.diag(torch.cat([2 * lens[:2] / size, lens.new_ones(1)]))  # pixels to [-1, 1], edges of the picture
    to_grid[:2, 2] = 2 * lens[2:] / size - 1
    rays = torch.cat([points, torch.ones_like(points[..., :1, :, :])], -3).flatten(-2)  # ([P,] 3, H*W)
    turned = (to_grid @ rotation.mT) @ rays  # (P, 3, H*W)
    grid = turned[:, :2] / turned[:, 2:].clamp_min(1e-3)
    margin = 1 - 2 / size
    inside = (grid[:, 0].abs() < margin[0]) & (grid[:, 1].abs() < margin[1])
    grid = grid.mT.unflatten(1, (height, width))
    seen = F.grid_sample(picture, grid, mode="bicubic", padding_mode="border", align_corners=False)
    return seen, inside.unflatten(1, (height, width)).float()


def spread(patches: Tensor, height: int, width: int) -> Tensor:
    """Values of patches (P, 2, J, I) at all pixels (P, 2, H, W): bilinear between centres, constant at the edge."""
    centres = F.pad(patches, (1, 1, 1, 1), mode="replicate")  # the first one now lies at PATCH/2 - PATCH_STRIDE
    offset = PATCH / 2 - PATCH_STRIDE
    y, x = (
        ((torch.arange(side) + 0.5 - offset) / PATCH_STRIDE / (count + 1) * 2 - 1)
        for side, count in ((height, patches.shape[2]), (width, patches.shape[3]))
    )
    grid = torch.stack(torch.broadcast_tensors(x[None], y[:, None]), -1).expand(len(patches), -1, -1, -1)
    return F.grid_sample(centres, grid, padding_mode="border", align_corners=True)


def blur(picture: Tensor) -> Tensor:
    """Binomial 5 x 5 (a gaussian of one pixel): a warp biases the alignment of anything sharper."""
    for dim in (-1, -2):
        side = picture.shape[dim]
        pad = (2, 2, 0, 0) if dim == -1 else (0, 0, 2, 2)
        p = [F.pad(picture, pad, mode="replicate").narrow(dim, i, side) for i in range(5)]
        picture = (p[0] + p[4] + 4 * (p[1] + p[3]) + 6 * p[2]) / 16
    return picture


def gradient(picture: Tensor) -> Tensor:
    """Central differences a pixel, (P, 1, H, W) -> (P, 2, H, W)."""
    p = F.pad(picture, (1, 1, 1, 1), mode="replicate")
    return torch.cat([p[..., 1:-1, 2:] - p[..., 1:-1, :-2], p[..., 2:, 1:-1] - p[..., :-2, 1:-1]], 1) / 2


def pixel_points(lens: Tensor, height: int, width: int) -> Tensor:
    """x/z and y/z of all pixel centres, (H, W, 2)."""
    x = (torch.arange(width) + 0.5 - lens[2]) / lens[0]
    y = (torch.arange(height) + 0.5 - lens[3]) / lens[1]
    return torch.stack(torch.broadcast_tensors(x[None], y[:, None]), -1)


def patch_points(lens: Tensor, height: int, width: int) -> Tensor:
    """The same of all patch centres, (N, 2)."""
    points = pixel_points(lens, height, width).permute(2, 0, 1)[None]
    return F.avg_pool2d(points, PATCH, PATCH_STRIDE)[0].permute(1, 2, 0).flatten(0, 1)


def sphere(count: int) -> Tensor:
    """Directions (count, 3) float64, evenly over the sphere (Fibonacci lattice)."""
    k = torch.arange(count, dtype=torch.float64) + 0.5
    z, turn = 1 - 2 * k / count, math.pi * (1 + math.sqrt(5)) * k
    radius = (1 - z * z).sqrt()
    return torch.stack([radius * turn.cos(), radius * turn.sin(), z], -1)


def exp_rotation(vector: Tensor) -> Tensor:
    """Rotation vectors (..., 3) in radians -> matrices (..., 3, 3) (Rodrigues)."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    turns = vector.norm(dim=-1)[..., None, None] / math.pi
    return torch.eye(3).to(vector) + turns.sinc() * cross + (turns / 2).sinc().square() / 2 * cross @ cross


def log_rotation(matrix: Tensor) -> Tensor:
    """Matrices (..., 3, 3) -> rotation vectors (..., 3), for angles below pi."""
    skew = (matrix - matrix.mT)[..., [2, 0, 1], [1, 2, 0]] / 2  # axis times sin(angle)
    sine = skew.norm(dim=-1, keepdim=True)
    cosine = (matrix.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True) - 1) / 2
    return skew * torch.where(sine > 1e-9, torch.atan2(sine, cosine) / sine.clamp_min(1e-9), 1.0)
