"""Camera control: how a camera moved, recovered from its video, against how it was told to move.

Turning comes from the video alone (`world_model.egomotion`). Moving needs a scale, which a video has not: it takes the
true depth of the scene along the commanded path, so that what a generated video shows is read as if it stood where
the camera was sent. The same measure on the true video is the extractor's own error, the floor of every other figure.

Shapes: T frames of H x W pixels, P = T - 1 pairs of neighbouring frames, N patches.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from world_model.egomotion import (
    PATCH,
    PATCH_STRIDE,
    blur,
    estimate_rotation,
    exp_rotation,
    patch_displacements,
    patch_points,
)
from world_model.errors import InputError
from world_model.image_metrics import luma

ROUNDS = 8  # of weighing patches by how well they fit
STILL = 0.05  # m/s: below it a direction of moving means nothing


@dataclass(frozen=True, kw_only=True)
class CameraError:
    """Of recovered against commanded motion. gain: recovered along the command as a share of it, nan without command;
    errors: mean length of the difference, deg/s and m/s; direction_error: mean angle between movements, degrees.
    """

    turn_gain: float
    turn_error: float
    move_gain: float
    move_error: float
    direction_error: float


def recover_motion(frames: np.ndarray, depth: np.ndarray, intrinsics: np.ndarray, fps: float) -> np.ndarray:
    """Twists (P, 6), m/s and rad/s in camera axes, of a video (T, H, W, 3) uint8.

    depth (T, H, W) metres along z at the frames' pixels; intrinsics (4,) in pixels. Raises InputError.
    """
    if depth.shape != frames.shape[:3]:
        raise InputError(f"depth: expected {frames.shape[:3]}, one value a pixel, got {depth.shape}")
    lens = torch.from_numpy(np.asarray(intrinsics, np.float32))
    turns = estimate_rotation(torch.from_numpy(frames), lens)  # (P, 3)
    moves = recover_translation(torch.from_numpy(frames), torch.from_numpy(depth), lens, turns)
    return torch.cat([moves, turns], -1).numpy() * fps


@torch.no_grad()
def recover_translation(frames: Tensor, depth: Tensor, lens: Tensor, turns: Tensor) -> Tensor:
    """Translations (P, 3) float64, metres a frame in camera axes, of a camera whose turns (P, 3) are known.

    Each patch is displaced by [-1 0 x; 0 -1 y] t / Z beyond the turn: least squares in t, by the patches' information,
    with those losing weight that do not fit.
    """
    smooth = blur(luma(frames.float())[:, None] / 255)
    moved, information = patch_displacements(smooth[:-1], smooth[1:], exp_rotation(turns).float(), lens)
    points = patch_points(lens, *smooth.shape[-2:])  # (N, 2)
    near = F.avg_pool2d(1 / depth[:-1, None].float().clamp_min(0.05), PATCH, PATCH_STRIDE).flatten(1)  # (P, N)
    slide = torch.cat([-torch.eye(2).expand(len(points), 2, 2), points[..., None]], -1)  # (N, 2, 3)
    slide, moved = (slide * near[..., None, None]).double(), moved.double()[..., None]  # (P, N, 2, 3), (P, N, 2, 1)
    information = information.double()
    weight = torch.ones_like(near, dtype=torch.float64)
    for _ in range(ROUNDS):
        weighted = information * weight[..., None, None]
        normal = (slide.mT @ weighted @ slide).sum(1)
        right = (slide.mT @ weighted @ moved).sum(1)
        shift = torch.linalg.solve(normal + 1e-3 * torch.eye(3, dtype=torch.float64), right)  # (P, 3, 1)
        rest = moved - slide @ shift[:, None]
        cost = (rest.mT @ information @ rest)[..., 0, 0]
        scale = cost.median(1, keepdim=True).values.clamp_min(1.0)
        weight = 1 / (1 + cost / scale)
    return shift[..., 0]


def camera_error(recovered: np.ndarray, commanded: np.ndarray) -> CameraError:
    """The error of twists (P, 6) recovered from video against those commanded, m/s and rad/s."""
    if recovered.shape != commanded.shape or recovered.ndim != 2 or recovered.shape[1] != 6:
        raise InputError(f"twists: expected two equal shapes (P, 6), got {recovered.shape} and {commanded.shape}")
    moves, turns = (recovered[:, :3], commanded[:, :3]), (recovered[:, 3:], commanded[:, 3:])
    lengths = [np.linalg.norm(each, axis=1) for each in moves]
    moving = (lengths[1] > STILL) & (lengths[0] > 0)
    cosine = (moves[0] * moves[1]).sum(1)[moving] / (lengths[0] * lengths[1])[moving]
    angles = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    return CameraError(
        turn_gain=gain(*turns),
        turn_error=float(np.degrees(np.linalg.norm(turns[0] - turns[1], axis=1)).mean()),
        move_gain=gain(*moves),
        move_error=float(np.linalg.norm(moves[0] - moves[1], axis=1).mean()),
        direction_error=float(angles.mean()) if len(angles) else math.nan,
    )


def gain(recovered: np.ndarray, commanded: np.ndarray) -> float:
    """The recovered part along the command as a share of it; nan where nothing was commanded."""
    power = float((commanded**2).sum())
    return float((recovered * commanded).sum()) / power if power > 1e-9 else math.nan
