"""The rest of a SANA-WM block: text cross-attention, the gated feed-forward with a temporal conv, and the head.

Shapes: B worlds, T latent frames, S tokens of a frame, C width, L words, H heads, D head channels, n chunks.
"""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from world_model.attention import Grid
from world_model.config import TransformerConfig


class CrossAttention(nn.Module):
    """Tokens read the prompt. The mask is not optional: padded words would dominate (architecture, 4)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_linear, self.proj = nn.Linear(width, width), nn.Linear(width, width)
        self.kv_linear = nn.Linear(width, 2 * width)
        self.q_norm, self.k_norm = nn.RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)

    def read(self, text: Tensor) -> tuple[Tensor, ...]:
        """The prompt's keys and values: (B, L, C) -> (B, H, L, D) each."""
        k, v = self.kv_linear(text).chunk(2, dim=-1)
        return tuple(y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in (self.k_norm(k), v))

    def forward(self, x: Tensor, words: tuple[Tensor, ...], mask: Tensor) -> Tensor:
        """x (B, T, S, C), words as read from the prompt, mask (B, 1, 1, L) bool -> (B, T, S, C)."""
        q = self.q_norm(self.q_linear(x)).flatten(1, 2).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        out = F.scaled_dot_product_attention(q, *words, attn_mask=mask)  # (B, H, N, D)
        return self.proj(out.transpose(1, 2).reshape(x.shape))


class GatedConv(nn.Module):
    """Feed-forward: gated inverted bottleneck inside each frame, then a residual conv across frames.

    The 1x1 convs run as linear layers over channels-last tokens; only the depthwise conv needs a picture.
    """

    MAX_ELEMENTS = 1 << 30  # conv kernels index with 32 bits

    def __init__(self, cfg: TransformerConfig) -> None:
        super().__init__()
        inner = 2 * int(cfg.width * cfg.mlp_ratio)
        self.inverted_conv = nn.ModuleDict({"conv": nn.Conv2d(cfg.width, inner, 1)})
        self.depth_conv = nn.ModuleDict({"conv": nn.Conv2d(inner, inner, 3, padding=1, groups=inner)})
        self.point_conv = nn.ModuleDict({"conv": nn.Conv2d(inner // 2, cfg.width, 1, bias=False)})
        self.t_conv = nn.Conv2d(cfg.width, cfg.width, (3, 1), bias=False)

    def forward(self, x: Tensor, grid: Grid, past: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, T, S, C), past (B, 1, S, C) -> (B, T, S, C) and each chunk's tail (B, n, 1, S, C)."""
        pictures = x.reshape(-1, grid.rows, grid.columns, x.shape[-1])
        limit = max(1, self.MAX_ELEMENTS // (self.depth_conv["conv"].out_channels * grid.tokens))
        x = torch.cat([self.within_frame(y) for y in pictures.split(limit)]).view_as(x)
        before, centre, after = self.t_conv.weight[..., 0].unbind(-1)  # (C, C) each
        around = grid.held.around(x, past, 1)
        y = x + F.linear(x, centre) + F.linear(around[:, :-2], before)
        if max(grid.chunks) > 1:
            y = y + F.linear(grid.same_chunk(around[:, 2:], 1), after)
        return y, x[:, grid.held.ends(grid.chunks), None]

    def within_frame(self, x: Tensor) -> Tensor:  # (frames, Y, X, C)
        widen, spread, narrow = (m["conv"] for m in (self.inverted_conv, self.depth_conv, self.point_conv))
        x = F.silu(F.linear(x, widen.weight.flatten(1), widen.bias)).permute(0, 3, 1, 2)
        value, gate = spread(x).permute(0, 2, 3, 1).chunk(2, dim=-1)
        return F.linear(value * F.silu(gate), narrow.weight.flatten(1))


class TimeEmbedder(nn.Module):
    """Diffusion time to a vector. Times lose their fraction, as in training (architecture, 3.2)."""

    def __init__(self, width: int, waves: int = 128) -> None:
        super().__init__()
        self.waves = waves
        self.linear_1, self.linear_2 = nn.Linear(2 * waves, width), nn.Linear(width, width)

    def forward(self, time: Tensor) -> Tensor:  # (B, T) in 0..1000 -> (B, T, C)
        wave = torch.arange(self.waves, device=time.device, dtype=torch.float32) / self.waves
        angle = time.long().float()[..., None] * torch.exp(-math.log(10000.0) * wave)
        waves = torch.cat([angle.cos(), angle.sin()], -1)
        return self.linear_2(F.silu(self.linear_1(waves.to(self.linear_1.weight.dtype))))


class CaptionEmbedder(nn.Module):
    """Text features (B, L, E) -> (B, L, C)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.y_proj = nn.ModuleDict({"fc1": nn.Linear(channels, width), "fc2": nn.Linear(width, width)})

    def forward(self, text: Tensor) -> Tensor:
        return self.y_proj["fc2"](F.gelu(self.y_proj["fc1"](text), approximate="tanh"))


class FinalLayer(nn.Module):
    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(width, channels)
        self.scale_shift_table = nn.Parameter(torch.randn(2, width) / width**0.5)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x (B, T, S, C), time (B, T, C): the embedding itself, not its modulation -> (B, T, S, channels)."""
        shift, scale = (self.scale_shift_table + time[:, :, None]).unbind(2)
        return self.linear(self.norm_final(x) * (1 + scale[:, :, None]) + shift[:, :, None])
