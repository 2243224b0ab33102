"""The SANA-WM transformer: noisy latents, camera and text in; velocity and caches out.

One code path serves dense calls (one chunk, no cache), streaming (one chunk, cache) and chunk-causal training
(many chunks): a chunk sees itself both ways, and the chunks before it.

Shapes: B worlds, T latent frames, Y rows, X columns, S = Y*X, C width, L words, P past tokens, n chunks.
"""

from dataclasses import dataclass

import torch
import torch.nn as nn
from torch import Tensor

from kernels.delta_rule import BACKENDS
from world_model.attention import DeltaCache, DeltaRuleAttention, Grid, SoftmaxAttention, SoftmaxCache, visibility
from world_model.config import TransformerConfig
from world_model.errors import BackendError
from world_model.geometry import Rays, Rope, camera_rays, ropes
from world_model.layers import CaptionEmbedder, CrossAttention, FinalLayer, GatedConv, TimeEmbedder
from world_model.sharding import ALL_FRAMES, AllFrames


@dataclass(frozen=True)
class BlockCache:
    """What one block hands from a chunk to the next. Into a call: (B, ...). Out of it: an entry a chunk."""

    mixer: DeltaCache | SoftmaxCache
    feed_forward: Tensor  # (B, 1, S, C) in, (B, n, 1, S, C) out: the last frame before the temporal conv


@dataclass(frozen=True)
class Conditions:
    """Everything that stays the same while a chunk is denoised; computed once and given to every forward."""

    grid: Grid
    rope: Rope
    rays: Rays
    plucker: tuple[Tensor, ...]  # (B, T, S, C), one a block
    words: tuple[tuple[Tensor, ...], ...]  # the prompt's keys and values, (B, H, L, D), two a block
    text_mask: Tensor  # (B, 1, 1, L) bool
    visible: Tensor | None  # (B or 1, 1, N, P + N) bool


class Block(nn.Module):
    def __init__(self, cfg: TransformerConfig, index: int) -> None:
        super().__init__()
        self.index = index
        self.attn = SoftmaxAttention(cfg) if cfg.is_softmax(index) else DeltaRuleAttention(cfg)
        self.plucker_proj = nn.Linear(cfg.width, cfg.width)
        self.cross_attn = CrossAttention(cfg.width, cfg.heads)
        self.mlp = GatedConv(cfg)
        self.norm1 = nn.LayerNorm(cfg.width, elementwise_affine=False, eps=1e-6)
        self.norm2 = nn.LayerNorm(cfg.width, elementwise_affine=False, eps=1e-6)
        self.scale_shift_table = nn.Parameter(torch.randn(6, cfg.width) / cfg.width**0.5)

    def forward(self, x: Tensor, time: Tensor, given: Conditions, past: BlockCache) -> tuple[Tensor, BlockCache]:
        """x (B, T, S, C); time (B, T, 6, C), one modulation a frame."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.scale_shift_table + time)[:, :, :, None].unbind(2)
        y = self.norm1(x) * (1 + scale1) + shift1
        y, mixer = self.attn(y, given.grid, given.rope, given.rays, given.visible, past.mixer)
        x = x + gate1 * y + given.plucker[self.index]
        x = x + self.cross_attn(x, given.words[self.index], given.text_mask)
        y, tail = self.mlp(self.norm2(x) * (1 + scale2) + shift2, given.grid, past.feed_forward)
        return x + gate2 * y, BlockCache(mixer, tail)

    def empty_cache(self, batch: int, grid: Grid, like: Tensor) -> BlockCache:
        tail = like.new_zeros(batch, 1, grid.tokens, self.plucker_proj.out_features)
        return BlockCache(self.attn.empty_cache(batch, grid, like), tail)


class SanaWM(nn.Module):
    """Raises BackendError for a backend of the delta rule that does not exist."""

    def __init__(self, cfg: TransformerConfig) -> None:
        super().__init__()
        if cfg.backend not in BACKENDS:
            raise BackendError(f"backend: expected one of {BACKENDS}, got {cfg.backend!r}")
        self.cfg = cfg
        width = cfg.width
        self.x_embedder = nn.ModuleDict({"proj": nn.Conv3d(cfg.latent_channels, width, 1)})
        self.plucker_embedder = nn.ModuleDict({"proj": nn.Conv3d(cfg.plucker_channels, width, 1)})
        self.t_embedder = TimeEmbedder(width)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.y_embedder = CaptionEmbedder(cfg.caption_channels, width)
        self.attention_y_norm = nn.RMSNorm(width, eps=1e-5)
        self.blocks = nn.ModuleList(Block(cfg, i) for i in range(cfg.depth))
        self.final_layer = FinalLayer(width, cfg.latent_channels)

    def condition(
        self,
        text: Tensor,
        text_mask: Tensor,
        camera: Tensor,
        plucker: Tensor,
        frame_index: Tensor,
        *,
        chunks: tuple[int, ...] | None = None,
        recent: int | None = None,
        past: int = 0,
        past_mask: Tensor | None = None,
        held: AllFrames = ALL_FRAMES,
    ) -> Conditions:
        """What all forwards of these frames share.

        text (B, L, E) features; text_mask (B, L) bool, True for words; camera (B, T, 20) float32 and plucker
        (B, 6*stride, T, Y, X) float32 as in world_model.camera; frame_index (B, T) absolute latent indices, which
        may differ from world to world; chunks: the frames of each chunk, default one; recent: the frames before a
        chunk that softmax sees besides the first chunk, default all; past: softmax tokens in the cache, of which
        past_mask (B, P) bool exist; held: which frames of the clip these are, default all.
        """
        grid = Grid(*plucker.shape[2:], chunks or (plucker.shape[2],), held)
        main_rope, camera_rope = ropes(frame_index, grid.rows, grid.columns, self.cfg.head_dim)
        dtype = self.attention_y_norm.weight.dtype
        plucker = embed(self.plucker_embedder["proj"], plucker.to(dtype))
        text = self.attention_y_norm(self.y_embedder(text.to(dtype)))
        return Conditions(
            grid=grid,
            rope=main_rope,
            rays=camera_rays(camera, camera_rope, grid.rows, grid.columns),
            plucker=tuple(block.plucker_proj(plucker) for block in self.blocks),
            words=tuple(block.cross_attn.read(text) for block in self.blocks),
            text_mask=text_mask[:, None, None],
            visible=visibility(grid, recent, past_mask, past, plucker.device),
        )

    def forward(
        self, latents: Tensor, time: Tensor, given: Conditions, cache: tuple[BlockCache, ...] | None = None
    ) -> tuple[Tensor, tuple[BlockCache, ...]]:
        """Velocity (noise - data) of latents (B, C, T, Y, X), and what each chunk leaves for the next.

        time (B, T) in 0..1000, 0 for clean frames. cache: one BlockCache a block, None before the first chunk.
        """
        x = embed(self.x_embedder["proj"], latents)
        past = cache if cache is not None else self.empty_cache(len(x), given.grid, x)
        t = self.t_embedder(time)
        modulation = self.t_block(t).unflatten(-1, (6, -1))
        written = []
        for block, block_past in zip(self.blocks, past, strict=True):
            x, entry = block(x, modulation, given, block_past)
            written.append(entry)
        velocity = self.final_layer(x, t)  # (B, T, S, channels)
        return velocity.permute(0, 3, 1, 2).unflatten(-1, latents.shape[-2:]), tuple(written)

    def empty_cache(self, batch: int, grid: Grid, like: Tensor) -> tuple[BlockCache, ...]:
        """The past of worlds that have none."""
        return tuple(block.empty_cache(batch, grid, like) for block in self.blocks)


def embed(conv: nn.Module, x: Tensor) -> Tensor:
    """A 1x1x1 conv as a linear layer: (B, channels, T, Y, X) -> (B, T, S, C)."""
    return nn.functional.linear(x.flatten(3).permute(0, 2, 3, 1), conv.weight.flatten(1), conv.bias)
