"""Pairs of clips, played and true, beside the frames that both are of.

Shapes: B windows, C channels, T latents of a clip, W of a window, R frames a latent, H, W pixels, Y, X cells.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from world_model.config import WorldConfig
from world_model.errors import InputError
from world_model.train.data.augment import VARIANTS, varied_frames
from world_model.train.data.clips import cached_frames
from world_model.train.data.source import Entry, open_entries
from world_model.train.pairs import PairDataset, open_pairs
from world_model.train.parts import read_ids

SIDES = ("latents", "made")  # of a pair: true, played


@dataclass(frozen=True, kw_only=True)
class Footage:
    """All pairs of a folder."""

    pairs: PairDataset
    ids: tuple[str, ...]  # of the pairs, episode@latent
    frames: tuple[np.ndarray, ...]  # of each clip, (1 + (T-1)*R, H, W, 3) uint8, mapped
    stride: int  # R

    def sample(self, batch: int, latents: int, draw: torch.Generator) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        """Random windows, and where they are from: `latents` and `made` (B, C, 1 + W, Y, X), the latent before the
        window first, and `frames` (B, W*R, H, W, 3) uint8.

        Latent 0 comes after itself, and its stack is frame 0 repeated, as the decoder has it.
        """
        drawn, numbers = self.pairs.sample(batch, draw)
        last = drawn["made"].shape[2] - latents
        if last < 0:
            raise InputError(f"windows: expected at most the {last + latents} latents of a pair, got {latents}")
        firsts = torch.randint(last + 1, (batch,), generator=draw)
        kept = (firsts[:, None] + torch.arange(-1, latents)).clamp_min(0)  # (B, 1 + W)
        rows = torch.arange(batch)[:, None]
        window = {side: drawn[side].movedim(2, 1)[rows, kept].movedim(1, 2) for side in SIDES}
        shown = (
            self.stride * firsts[:, None] + torch.arange(1 - self.stride, 1 + (latents - 1) * self.stride)
        ).clamp_min(0)
        frames = [self.frames[i][index] for i, index in zip(numbers.tolist(), shown.numpy(), strict=True)]
        names = tuple(f"{self.ids[i]}+{first}" for i, first in zip(numbers.tolist(), firsts.tolist(), strict=True))
        return window | {"frames": torch.from_numpy(np.stack(frames))}, names

    def first(self, count: int) -> dict[str, Tensor]:
        """The first clips whole, at most `count`: `latents` and `made` (B, C, T, Y, X), and their `frames`."""
        drawn = self.pairs.first(count)
        frames = np.stack(self.frames[:count])
        return {**{side: drawn[side] for side in SIDES}, "frames": torch.from_numpy(frames)}


def open_footage(folder: Path, episodes: tuple[str, ...], cache: Path, world: WorldConfig) -> Footage:
    """Pairs of `folder`, whose clips come from `episodes` (see data/source.py).

    Raises CheckpointError for broken pairs or pairs that don't name their clips, InputError for a clip that is in none
    of the episodes.
    """
    pairs, ids, tokenizer = open_pairs(folder, world.text), read_ids(folder), world.tokenizer
    entries = {entry.name: entry for entry in open_entries(episodes, (tokenizer.height, tokenizer.width))}
    length = 1 + (pairs.tensors["made"].shape[2] - 1) * tokenizer.temporal_stride
    frames = tuple(_frames(name, length, tokenizer.temporal_stride, entries, cache) for name in ids)
    return Footage(pairs=pairs, ids=ids, frames=frames, stride=tokenizer.temporal_stride)


def _frames(name: str, length: int, stride: int, entries: Mapping[str, Entry], cache: Path) -> np.ndarray:
    """The `length` frames of the clip that latents called `name` were windows of."""
    episode, _, start = name.rpartition("@")
    for suffix in sorted(VARIANTS, key=len, reverse=True):
        entry = entries.get(episode.removesuffix(suffix))
        if entry is not None and episode.endswith(suffix):
            whole = varied_frames(suffix, cached_frames(entry, cache))
            clip = whole[stride * int(start) :][:length]
            if len(clip) == length:
                return clip
            raise InputError(f"{entry.where}: expected {length} frames from {stride * int(start)} on, got {len(clip)}")
    raise InputError(f"pairs: expected clips of the {len(entries)} episodes that were given, got {name}")
