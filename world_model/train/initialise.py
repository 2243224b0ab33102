"""Weights to start training from: the values that SANA-WM's extension starts from (stage-1 architecture, 14.1),
and a transformer that is close to the identity, since here nothing is inherited from a video model.

At the start the camera branch and the Plücker path contribute exactly nothing.
"""

import torch
import torch.nn as nn
from torch import Tensor

from world_model.attention import DeltaRuleAttention, KeyConv
from world_model.transformer import Block, SanaWM

OPEN_GATE = 1.278464542761074  # SiLU of it is 1


def initialise(model: SanaWM) -> None:
    """Overwrite all weights of `model` in place; draws from torch's global generator."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, KeyConv):
            nn.init.zeros_(module.weight)
            module.weight.data[..., -1] = 1.0
    for block in model.blocks:
        assert isinstance(block, Block)
        _initialise_block(block, model.cfg.width)
    for layer in (model.t_block[-1], model.final_layer.linear):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    nn.init.zeros_(model.final_layer.scale_shift_table)


def _initialise_block(block: Block, width: int) -> None:
    attention = block.attn
    nn.init.zeros_(attention.output_gate.weight)
    nn.init.constant_(attention.output_gate.bias, OPEN_GATE)
    for ours, theirs in zip(
        (attention.q_proj_cam, attention.k_proj_cam, attention.v_proj_cam),
        attention.qkv.weight.data.split(width),
        strict=True,
    ):
        ours.weight.data.copy_(theirs)
    for silent in (attention.out_proj_cam, block.plucker_proj, block.cross_attn.proj):
        nn.init.zeros_(silent.weight)
        nn.init.zeros_(silent.bias)
    nn.init.zeros_(block.mlp.t_conv.weight)
    if isinstance(attention, DeltaRuleAttention):
        nn.init.zeros_(attention.beta_proj.weight)
        nn.init.constant_(attention.beta_proj.bias, 5.0)
        nn.init.zeros_(attention.gate_proj.weight)
        nn.init.zeros_(attention.gate_proj.bias)
        nn.init.zeros_(attention.A_log)
        nn.init.constant_(attention.dt_bias, -5.0)
    shift, scale, gate = torch.zeros(width), torch.zeros(width), torch.full((width,), 0.5)
    block.scale_shift_table.data.copy_(torch.stack([shift, scale, gate, shift, scale, gate]))


@torch.no_grad()
def whiten_plucker(model: SanaWM, rays: Tensor, floor: float = 1e-4) -> None:
    """Let every direction in which Plücker rays vary reach the blocks with unit variance.

    rays (N, 6*stride): samples of training cameras. Rays differ from cell to cell far more than from frame to frame,
    so that under an ordinary initialisation the motion, which is what has to be obeyed, is a thousandth of the
    signal: a run without this reached a loss that did not change when the cameras were shuffled.
    """
    conv = model.plucker_embedder["proj"]
    mean = rays.mean(0)
    variance, directions = torch.linalg.eigh((rays - mean).mT @ (rays - mean) / len(rays))
    whiten = directions / variance.clamp_min(floor * variance[-1]).sqrt()  # (6*stride, 6*stride)
    spread = torch.randn(conv.out_channels, len(mean)) * len(mean) ** -0.5
    weight = spread @ whiten.mT
    conv.weight.copy_(weight[..., None, None, None])
    conv.bias.copy_(-weight @ mean)
