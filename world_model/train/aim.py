"""Camera heads that look along their ray from the first step on.

A softmax block's camera branch scores two tokens by q T k, where T takes the key's ray frame into the query's (stage-1
architecture, 8). With q = k = the ray's own axis that is the cosine between the two rays: a head whose queries and keys
hold little else reads, for each cell, what any remembered frame shows in the same direction, which for a turning
camera is the picture to be drawn. Training would find this, but slowly: between neighbouring cells the cosine changes
by a hundredth, and a norm weight has to grow tenfold before softmax can tell them apart.

Shapes: H heads, D head channels, C = H*D width.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from world_model.attention import SoftmaxAttention
from world_model.errors import InputError
from world_model.transformer import SanaWM

SHARPNESS = 150.0  # of the score, in 1 - cosine: cells 10 degrees apart differ by a factor of ten
NEAR = ((3.0, 1.5), (8.0, 0.215))  # of the two fastest time angles: weight of the score, and phase; best at ages 1, 2
LOUDNESS = 6.0  # of the constants beside what the projections say, before they are normalised


@dataclass(frozen=True)
class Aim:
    """Where a head looks: beside its ray by `right` and `down` (tangents of angles); `near`: at the last frames."""

    right: float = 0.0
    down: float = 0.0
    near: bool = True


AIMS = (Aim(), Aim(near=False), Aim(0.05, 0.05, near=False), Aim(-0.05, -0.05))


@torch.no_grad()
def aim_heads(model: SanaWM, aims: tuple[Aim, ...] = AIMS) -> None:
    """Make the first heads of every softmax block's camera branch look along `aims`, in place.

    Their other channels keep what they had and so do the other heads: norm weights make up for the constants' share.
    What these heads say is silenced at first (columns of `out_proj_cam`). Raises InputError for more aims than heads.
    """
    if len(aims) > model.cfg.heads:
        raise InputError(f"aims: expected at most {model.cfg.heads}, one a head, got {len(aims)}")
    for block in model.blocks:
        if isinstance(block.attn, SoftmaxAttention):
            _aim(block.attn, aims, model.cfg.head_dim)


def _aim(attention: SoftmaxAttention, aims: tuple[Aim, ...], head_dim: int) -> None:
    scale = attention.camera_scale
    for side, project, norm in (
        ("query", attention.q_proj_cam, attention.q_norm_cam),
        ("key", attention.k_proj_cam, attention.k_norm_cam),
    ):
        before = _loudness(project)
        weights: dict[int, float] = {}  # of the score that each constant channel takes part in
        for head, aim in enumerate(aims):
            first = head * head_dim
            axis = (aim.right, aim.down, 1.0) if side == "query" else (0.0, 0.0, 1.0)
            constants = {first + i: (value, SHARPNESS) for i, value in enumerate(axis)}
            for pair, (weight, phase) in enumerate(NEAR if aim.near else ()):
                angle = -phase if side == "query" else 0.0
                channel = first + head_dim // 2 + 2 * pair  # the half that RoPE turns: its first angles are time's
                constants |= {channel: (math.cos(angle), weight), channel + 1: (math.sin(angle), weight)}
            for channel, (value, weight) in constants.items():
                project.weight[channel] = 0
                project.bias[channel] = LOUDNESS * before * value
                weights[channel] = weight
        after = _loudness(project)
        norm.weight.mul_(after / before)
        for channel, weight in weights.items():  # norm(constant)**2 * scale = weight
            norm.weight[channel] = math.sqrt(weight / scale) * after / (LOUDNESS * before)
    attention.out_proj_cam.weight[:, : len(aims) * head_dim] = 0


def _loudness(project: nn.Linear) -> Tensor:
    """The RMS over channels of a projection of inputs of unit variance."""
    return ((project.weight.square().sum() + project.bias.square().sum()) / len(project.weight)).sqrt()
