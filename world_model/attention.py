"""SANA-WM self-attention: a main and a camera branch over the same tokens, mixed by delta rule or by softmax.

Parameter names are those of the released checkpoint. What a block needs from earlier chunks comes in as a cache
without a chunk axis; what it hands on goes out with one, an entry for every chunk of the call.

Shapes: B worlds, T latent frames, S tokens of a frame, N = T*S, C width, H heads, D head channels, P past tokens,
n chunks.
"""

from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from world_model.config import TransformerConfig
from world_model.geometry import Rays, Rope, project, rotate
from world_model.sharding import ALL_FRAMES, AllFrames


@dataclass(frozen=True)
class Grid:
    """Latent frames, rows and columns of one call, and the frames of each chunk of the clip that it belongs to."""

    frames: int  # of those held here
    rows: int
    columns: int
    chunks: tuple[int, ...]
    held: AllFrames = ALL_FRAMES

    @property
    def tokens(self) -> int:
        return self.rows * self.columns

    def chunk(self, offset: int = 0) -> Tensor:
        """(T,): which chunk the frame `offset` after each one has; -1 where the clip has no frame."""
        chunk = torch.repeat_interleave(torch.arange(len(self.chunks)), torch.tensor(self.chunks))
        there = torch.arange(self.frames) + (self.held.first + offset)
        inside = there.clamp(0, len(chunk) - 1)
        return torch.where(there == inside, chunk[inside], -1)

    def same_chunk(self, x: Tensor, offset: int) -> Tensor:
        """(B, T, ...), what lies `offset` frames after each frame: zeros where that is not of the frame's own chunk."""
        keep = (self.chunk() == self.chunk(offset)) & (self.chunk() >= 0)
        return torch.where(keep.to(x.device).view(1, -1, *[1] * (x.dim() - 2)), x, x.new_zeros(()))


@dataclass(frozen=True)
class DeltaCache:
    """A delta-rule block's past. In: (B, ...); out: (B, n, ...)."""

    numerator: Tensor  # (H, D, D) float32
    denominator: Tensor  # (H, 1, D) float32
    camera: Tensor  # (H, D, D) float32
    key_conv: Tensor  # (taps - 1, S, C), the last raw keys


@dataclass(frozen=True)
class SoftmaxCache:
    """A softmax block's past keys and values, rotated already: (B, H, P, D). Out: those of the call's own tokens."""

    keys: Tensor
    values: Tensor
    camera_keys: Tensor
    camera_values: Tensor


class KeyConv(nn.Module):
    """Depthwise conv over frames, summed over both directions with the centre tap counted once."""

    def __init__(self, width: int, taps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(F.pad(torch.ones(width, 1, 1), (taps - 1, 0)))  # last tap: the frame itself

    def forward(self, x: Tensor, grid: Grid, past: Tensor | None = None) -> Tensor:
        """(B, T, S, C) -> the same. With `past` (B, taps-1, S, C) earlier frames count across chunks, else not."""
        taps = self.weight[:, 0].mT  # (taps, C)
        reach, longest = len(taps) - 1, max(grid.chunks)
        y = x * taps[-1]
        around = grid.held.around(x, past, reach)
        for offset in range(1, len(taps)):
            before, after = (around[:, reach + o :][:, : grid.frames] for o in (-offset, offset))
            if past is not None:
                y = y + taps[-1 - offset] * before
            elif offset < longest:
                y = y + taps[-1 - offset] * grid.same_chunk(before, -offset)
            if offset < longest:
                y = y + taps[-1 - offset] * grid.same_chunk(after, offset)
        return y


class TwoBranchAttention(nn.Module):
    """Projections, norms and the gated output that both mixers share."""

    def __init__(self, cfg: TransformerConfig) -> None:
        super().__init__()
        self.heads, self.backend, self.rms_envelope = cfg.heads, cfg.backend, cfg.rms_envelope
        self.main_scale, self.camera_scale = cfg.main_scale_width**-0.5, cfg.camera_scale_width**-0.5
        width = cfg.width
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_norm, self.k_norm = nn.RMSNorm(width, eps=1e-5), nn.RMSNorm(width, eps=1e-5)
        self.q_proj_cam, self.k_proj_cam, self.v_proj_cam = (nn.Linear(width, width) for _ in range(3))
        self.q_norm_cam, self.k_norm_cam = nn.RMSNorm(width, eps=1e-5), nn.RMSNorm(width, eps=1e-5)
        self.out_proj_cam = nn.Linear(width, width)
        self.output_gate = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def split_heads(self, x: Tensor) -> Tensor:  # (B, T, S, C) -> (B, N, H, D)
        return x.flatten(1, 2).unflatten(-1, (self.heads, -1))

    def combine(self, x: Tensor, main: Tensor, camera: Tensor) -> Tensor:
        """Both branches (B, N, H, D) and their input (B, T, S, C) -> the block's output (B, T, S, C)."""
        out = main.flatten(2) + self.out_proj_cam(camera.flatten(2))  # (B, N, C)
        return self.proj((out.view_as(x) * F.silu(self.output_gate(x).float())).to(x.dtype))

    def encode_rays(self, rays: Rays, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """UCPE on queries, keys and values, (B, N, H, D) each (stage-1 architecture, 8 and 10.4)."""
        encoded = [project(x, m, rays.rope) for x, m in ((q, rays.query), (k, rays.key_value), (v, rays.key_value))]
        if self.rms_envelope:
            encoded = [no_louder_than(x, y) for x, y in zip((q, k, v), encoded, strict=True)]
        return encoded[0], encoded[1], encoded[2]


class DeltaRuleAttention(TwoBranchAttention):
    def __init__(self, cfg: TransformerConfig) -> None:
        super().__init__(cfg)
        self.beta_proj, self.gate_proj = nn.Linear(cfg.width, cfg.heads), nn.Linear(cfg.width, cfg.heads)
        self.A_log, self.dt_bias = nn.Parameter(torch.zeros(cfg.heads)), nn.Parameter(torch.zeros(cfg.heads))
        self.conv_k, self.conv_k_cam = KeyConv(cfg.width, cfg.key_conv), KeyConv(cfg.width, cfg.key_conv)

    def empty_cache(self, batch: int, grid: Grid, like: Tensor) -> DeltaCache:
        heads, width = self.heads, self.proj.in_features
        state = like.new_zeros(batch, heads, width // heads, width // heads, dtype=torch.float32)
        prefix = like.new_zeros(batch, self.conv_k.weight.shape[-1] - 1, grid.tokens, width)
        return DeltaCache(state, state[:, :, :1], state, prefix)

    def forward(
        self, x: Tensor, grid: Grid, rope: Rope, rays: Rays, visible: Tensor | None, past: DeltaCache
    ) -> tuple[Tensor, DeltaCache]:
        beta, decay = self.gates(x)
        main, numerator, denominator, prefix = self.main(x, grid, rope, beta, decay, past)
        camera, state = self.camera(x, grid, rays, beta, decay, past)
        return self.combine(x, main, camera), DeltaCache(numerator, denominator, state, prefix)

    def gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """How far each token writes (B, H, T, S) and how much each frame keeps (B, H, T), float32."""
        beta = self.beta_proj(x).sigmoid().permute(0, 3, 1, 2)
        rate = F.softplus(self.gate_proj(x.mean(2)).float() + self.dt_bias.float())
        return beta.float(), (-self.A_log.float().exp() * rate).exp().mT

    def main(self, x: Tensor, grid: Grid, rope: Rope, beta: Tensor, decay: Tensor, past: DeltaCache):
        q, raw_k, v = self.qkv(x).chunk(3, dim=-1)
        k = self.conv_k(raw_k, grid, past.key_conv)
        q, k, v = (self.split_heads(y) for y in (F.relu(self.q_norm(q)), F.relu(self.k_norm(k)), v))
        k = k * (k.shape[-1] * grid.tokens) ** -0.5  # keeps a frame's transition a contraction (architecture, 9.1)
        numerator, numerator_states = self.mix(rotate(q, rope), rotate(k, rope), v, beta, decay, past.numerator, grid)
        ones = torch.ones_like(v[..., :1])
        denominator, denominator_states = self.mix(q, k, ones, beta, decay, past.denominator, grid)
        out = (numerator / (denominator + 1e-8)).to(x.dtype)
        return out, numerator_states, denominator_states, key_prefixes(raw_k, past.key_conv, grid)

    def camera(self, x: Tensor, grid: Grid, rays: Rays, beta: Tensor, decay: Tensor, past: DeltaCache):
        k = self.conv_k_cam(self.k_proj_cam(x), grid)
        q, k = F.relu(self.q_norm_cam(self.q_proj_cam(x))), F.relu(self.k_norm_cam(k))
        q, k, v = (self.split_heads(y) for y in (q, k, self.v_proj_cam(x)))
        k = k * (k.shape[-1] * grid.tokens) ** -0.5
        q, ray_k, v = self.encode_rays(rays, q, k, v)
        # a ray's translation can lengthen a key, which would break the contraction: write less where it does
        stretch = ray_k.float().norm(dim=-1).clamp_min(1e-6) / k.float().norm(dim=-1).clamp_min(1e-6)  # (B, N, H)
        inflation = stretch.square().unflatten(1, (grid.frames, -1)).mean(2).mT  # (B, H, T)
        beta = beta / inflation.clamp_min(1.0)[..., None]
        out, states = self.mix(q, ray_k, v, beta, decay, past.camera, grid)
        return project(out.to(x.dtype), rays.output, rays.rope.inverse()), states

    def mix(self, q, k, v, beta, decay, state, grid: Grid) -> tuple[Tensor, Tensor]:
        """(B, N, H, .) -> readout (B, N, H, V) float32 and the states at chunk ends (B, n, H, V, D)."""
        q, k, v = (y.unflatten(1, (grid.frames, -1)).permute(0, 3, 1, 2, 4) for y in (q, k, v))  # (B, H, T, S, .)
        out, states = grid.held.delta_rule(q, k, v, beta, decay, state, grid.chunks, self.backend)
        if max(grid.chunks) > 1:  # a frame also reads the frames after it, up to its chunk's end
            last = (grid.chunk() != grid.chunk(1)).to(decay.device)  # where nothing is kept of what comes later
            later = grid.held.delta_rule_later(q, k, v, beta, decay.masked_fill(last, 0.0), self.backend)
            out = out + later.masked_fill(last[:, None, None], 0.0)
        return out.permute(0, 2, 3, 1, 4).flatten(1, 2), states.transpose(1, 2)


class SoftmaxAttention(TwoBranchAttention):
    def empty_cache(self, batch: int, grid: Grid, like: Tensor) -> SoftmaxCache:
        nothing = like.new_zeros(batch, self.heads, 0, self.proj.in_features // self.heads)
        return SoftmaxCache(nothing, nothing, nothing, nothing)

    def forward(
        self, x: Tensor, grid: Grid, rope: Rope, rays: Rays, visible: Tensor | None, past: SoftmaxCache
    ) -> tuple[Tensor, SoftmaxCache]:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q, k, v = (self.split_heads(y) for y in (self.q_norm(q), self.k_norm(k), v))
        q, k, v = (y.transpose(1, 2) for y in (rotate(q, rope), rotate(k, rope), v))  # (B, H, N, D)
        main = attend(q, k, v, past.keys, past.values, visible, self.main_scale, grid)

        q, camera_k = self.q_norm_cam(self.q_proj_cam(x)), self.k_norm_cam(self.k_proj_cam(x))
        q, camera_k, camera_v = (self.split_heads(y) for y in (q, camera_k, self.v_proj_cam(x)))
        q, camera_k, camera_v = (y.transpose(1, 2) for y in self.encode_rays(rays, q, camera_k, camera_v))
        camera = attend(q, camera_k, camera_v, past.camera_keys, past.camera_values, visible, self.camera_scale, grid)
        camera = project(camera, rays.output, rays.rope.inverse())
        return self.combine(x, main, camera), SoftmaxCache(k, v, camera_k, camera_v)


def attend(q, k, v, past_k, past_v, visible: Tensor | None, scale: float, grid: Grid) -> Tensor:
    """Queries (B, H, N, D) over past and the clip's keys -> (B, N, H, D). visible as `visibility` makes it."""
    k, v = (grid.held.whole(y, 2, grid.tokens) for y in (k, v))
    if past_k.shape[2]:
        k, v = torch.cat([past_k, k], 2), torch.cat([past_v, v], 2)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=visible, scale=scale).transpose(1, 2)


def visibility(
    grid: Grid, recent: int | None, past_mask: Tensor | None, past: int, device: torch.device
) -> Tensor | None:
    """Which tokens each token may see of the past and then of the clip, (B or 1, 1, N, P + M) bool; None if all.

    A chunk sees itself, the first chunk, and the `recent` frames before it (None: all of them); past_mask (B, P)
    bool says which past tokens exist.
    """
    if past_mask is None and len(grid.chunks) == 1:
        return None
    chunk = torch.repeat_interleave(torch.arange(len(grid.chunks)), torch.tensor(grid.chunks))  # (T,)
    start = (chunk[:, None] > chunk).sum(1)  # of each frame's chunk
    age = start[:, None] - torch.arange(len(chunk))  # 1: the last frame before the chunk
    near = age <= (len(chunk) if recent is None else recent)
    seen = grid.held.cut((chunk[:, None] >= chunk) & ((chunk == 0) | near), 0)
    own = seen.repeat_interleave(grid.tokens, 0).repeat_interleave(grid.tokens, 1).to(device)  # (N, M)
    if past_mask is None:
        past_mask = torch.ones(1, past, dtype=torch.bool, device=device)
    rows = past_mask[:, None, None].expand(-1, 1, len(own), -1)
    return torch.cat([rows, own.expand(len(rows), 1, -1, -1)], -1)


def key_prefixes(keys: Tensor, past: Tensor, grid: Grid) -> Tensor:
    """The raw keys of the last frames up to each chunk's end: (B, T, S, C) -> (B, n, taps-1, S, C)."""
    frames = torch.cat([past, keys], 1)
    prefixes = [frames[:, end + 1 : end + 1 + past.shape[1]] for end in grid.held.ends(grid.chunks)]
    return torch.stack(prefixes, 1) if prefixes else past[:, None][:, :0]


def no_louder_than(reference: Tensor, x: Tensor) -> Tensor:
    """Scale each token and head of x down to the RMS of reference where it exceeds it (architecture, 10.4)."""
    before, now = (y.float().square().mean(-1, keepdim=True).add(1e-6).sqrt() for y in (reference, x))
    return (x * (before / now).clamp(max=1.0)).type_as(x)
