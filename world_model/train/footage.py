"""Pairs of clips, played and true, beside the frames that both are of.

Shapes: B windows, C channels, T latents of a clip, W of a window, R frames a latent, H, W pixels, Y, X cells.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from world_model.config import WorldConfig
from world_model.errors import CheckpointError, InputError
from world_model.train.data.augment import VARIANTS, varied_frames
from world_model.train.data.clips import cached_frames, to_video
from world_model.train.data.source import Entry, open_entries, refuse_namesakes
from world_model.train.pairs import PairDataset, open_pairs
from world_model.train.parts import read_ids
from world_model.vae import VideoTokenizer

SAME = 0.05  # of the latents' length: they, and the weights of an exported tokenizer, are rounded to bfloat16
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

    @torch.no_grad()
    def require(self, tokenizer: VideoTokenizer) -> None:
        """Raises CheckpointError when the first clip's latents are not what its frames are encoded to: then these are
        other frames than the latents were made of, or another tokenizer made them."""
        clip = self.first(1)
        encoded = tokenizer.encode(to_video(clip["frames"]).to(tokenizer.latents_mean.device)).cpu()
        gap = float((encoded - clip["latents"]).norm() / encoded.norm())
        if gap > SAME:
            raise CheckpointError(
                f"{self.ids[0]}: expected the latents that this tokenizer makes of the episode's frames, got others, "
                f"{gap:.0%} away: was it rendered again, or encoded by another tokenizer?"
            )

    def first(self, count: int) -> dict[str, Tensor]:
        """The first clips whole, at most `count`: `latents` and `made` (B, C, T, Y, X), and their `frames`."""
        drawn = self.pairs.first(count)
        frames = np.stack(self.frames[:count])
        return {**{side: drawn[side] for side in SIDES}, "frames": torch.from_numpy(frames)}


def open_footage(folder: Path, episodes: tuple[str, ...], cache: Path, world: WorldConfig) -> Footage:
    """Pairs of `folder`, whose clips come from `episodes` (see data/source.py).

    Raises CheckpointError for broken pairs or pairs that don't name their clips, EpisodeError for two episodes of one
    name, InputError for a clip that is in none of them.
    """
    pairs, ids, tokenizer = open_pairs(folder, world.text), read_ids(folder), world.tokenizer
    entries = open_entries(episodes, (tokenizer.height, tokenizer.width))
    refuse_namesakes(entries)
    known = {entry.name: entry for entry in entries}
    places = [_place(name, known) for name in ids]
    wanted = {entry.name: entry for entry, _, _ in places}
    whole = {name: cached_frames(entry, cache) for name, entry in tqdm(wanted.items(), desc="frames", unit="episode")}
    stride, latents = tokenizer.temporal_stride, pairs.tensors["made"].shape[2]
    frames = []
    for entry, suffix, start in places:
        first, length = stride * start, 1 + (latents - 1) * stride
        clip = varied_frames(suffix, whole[entry.name])[first:][:length]
        if len(clip) < length:
            raise InputError(f"{entry.where}: expected {length} frames from {first} on, got {len(clip)}")
        frames.append(clip)
    return Footage(pairs=pairs, ids=ids, frames=tuple(frames), stride=stride)


def _place(name: str, entries: Mapping[str, Entry]) -> tuple[Entry, str, int]:
    """Of a clip by the name of its latents: the episode, its variant, and the latent in it where the clip begins."""
    episode, _, start = name.rpartition("@")
    for suffix in sorted(VARIANTS, key=len, reverse=True):
        if episode.endswith(suffix) and episode.removesuffix(suffix) in entries:
            return entries[episode.removesuffix(suffix)], suffix, int(start)
    raise InputError(f"pairs: expected clips of the {len(entries)} episodes that were given, got {name}")
