"""Whole clips whose camera paths are known in advance: what training and the bidirectional sampler work on.

Shapes: B clips, T latents of a clip, C channels, Y, X cells, L words, E text channels.
"""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from world_model.camera import cell_intrinsics
from world_model.config import WorldConfig
from world_model.live_camera import chunk_camera, start_camera


@dataclass(frozen=True)
class Clips:
    """Clips that begin with a start latent, and what they are conditioned on."""

    latents: Tensor  # (B, C, T, Y, X)
    poses: Tensor  # (B, 1 + (T-1)*stride or more, 4, 4) camera-to-world of each frame, relative to the first
    intrinsics: Tensor  # (B, 4) pixels
    text: Tensor  # (B, L, E)
    text_mask: Tensor  # (B, L) bool
    frame_index: Tensor  # (B, T) latent indices, which may jump after the start latent
    kept: Tensor | None = None  # (B, T) which latents of the path these are, rising from 0; None: all of it


def cameras(clips: Clips, config: WorldConfig) -> tuple[Tensor, Tensor]:
    """`camera` (B, T, 20) and `plucker` (B, 6*stride, T, Y, X) of whole clips, as streaming would make them."""
    tokenizer = config.tokenizer
    lens = cell_intrinsics(clips.intrinsics, (tokenizer.height, tokenizer.width), tokenizer.grid)
    stride = tokenizer.temporal_stride
    seen = clips.poses[:, :stride] if config.first_plucker == "overlap" else None
    first = start_camera(lens, tokenizer.grid, stride, seen)
    before, path = clips.poses[:, 0], clips.poses[:, 1:]
    later = chunk_camera(before, path, lens, tokenizer.grid, stride, config.plucker_reference)
    camera, plucker = torch.cat([first[0], later[0]], 1), torch.cat([first[1], later[1]], 2)
    if clips.kept is None:
        return camera, plucker
    chosen = torch.arange(len(camera), device=camera.device)[:, None], clips.kept
    return camera[chosen], plucker.transpose(1, 2)[chosen].transpose(1, 2)


def select(clips: Clips, worlds: Tensor) -> Clips:
    """Some clips of a batch."""
    return dataclasses.replace(clips, **{n: x[worlds] for n, x in vars(clips).items() if x is not None})


def wordless(clips: Clips) -> Clips:
    """The same clips without a prompt: only the start token is left."""
    words = torch.arange(clips.text_mask.shape[1], device=clips.text_mask.device)
    return dataclasses.replace(clips, text_mask=clips.text_mask & (words == 0))


def noised(clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """The straight path from data at time 0 to noise at 1000: (B, C, T, Y, X), time (B, T)."""
    sigma = time[:, None, :, None, None] / 1000
    return clean + sigma * (noise - clean)
