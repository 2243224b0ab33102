"""Noise levels of training: a time for every latent frame, and how the times of a clip's chunks hang together.

A model that will denoise chunk after chunk must know clips whose earlier chunks are cleaner than the later ones. So
chunk-causal training mixes four ways to draw the levels of a clip's chunks (training, 3.1). A level is an integer
index in 0..LEVELS-1, shifted towards noise and scaled into a model time in 0..1000.

Shapes: B clips, n chunks, T latent frames.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from world_model.errors import InputError

LEVELS = 1000


@dataclass(frozen=True, kw_only=True)
class TimeMixture:
    """Shares of clips whose chunks get their levels in each way; they sum to one. Defaults: the public recipe's."""

    same: float = 0.1  # one level for all chunks
    incremental: float = 0.4  # never falling; a random chunk's level is logit-normal
    last_anchor: float = 0.4  # never falling; the last chunk's level is logit-normal
    clean_prefix: float = 0.1  # a random number of clean chunks, then one level for the others

    def __post_init__(self) -> None:
        shares = tuple(vars(self).values())
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            raise InputError(f"time mixture: expected shares >= 0 that sum to 1, got {shares}")


def logit_normal(shape: tuple[int, ...], draw: torch.Generator) -> Tensor:
    """Levels whose log-odds are standard normal, int64."""
    return (LEVELS * torch.randn(shape, generator=draw).sigmoid()).long()


def model_times(levels: Tensor, shift: float) -> Tensor:
    """Levels -> model times, float32: sigma' = shift*sigma / (1 + (shift-1)*sigma), times 1000 (training, 1)."""
    sigma = levels / LEVELS
    return 1000 * shift * sigma / (1 + (shift - 1) * sigma)


def monotone(length: int, low: int, high: int, draw: torch.Generator) -> Tensor:
    """One of all never falling sequences of `length` integers in low..high, each as likely as the others.

    Adding 0, 1, 2, ... to such a sequence makes it a set of distinct integers, and every set comes from one
    sequence: so a uniform set is drawn and the ramp taken off.
    """
    chosen = torch.randperm(high - low + length, generator=draw)[:length].sort().values
    return low + chosen - torch.arange(length)


def chunk_levels(clips: int, chunks: int, mixture: TimeMixture, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Levels (B, n) int64, and which chunks (B, n) bool are clean context, whatever their level."""
    ways = torch.multinomial(torch.tensor(tuple(vars(mixture).values())), clips, replacement=True, generator=draw)
    levels, clean = torch.empty(clips, chunks, dtype=torch.int64), torch.zeros(clips, chunks, dtype=torch.bool)
    for clip, way in enumerate(ways.tolist()):
        level = int(logit_normal((), draw))
        levels[clip] = level
        name = tuple(vars(mixture))[way]
        if name == "clean_prefix":
            clean[clip, : int(torch.randint(chunks, (), generator=draw))] = True
        elif name != "same":
            pivot = chunks - 1 if name == "last_anchor" else int(torch.randint(chunks, (), generator=draw))
            levels[clip, :pivot] = monotone(pivot, 0, level, draw)
            levels[clip, pivot + 1 :] = monotone(chunks - 1 - pivot, level, LEVELS - 1, draw)
    return levels, clean


def chunk_times(
    clips: int, chunks: tuple[int, ...], mixture: TimeMixture, shift: float, draw: torch.Generator
) -> Tensor:
    """Model times (B, T) of clips whose chunks have these many frames: one time a chunk, 0 where it is clean."""
    levels, clean = chunk_levels(clips, len(chunks), mixture, draw)
    times = torch.where(clean, 0.0, model_times(levels, shift))
    return times.repeat_interleave(torch.tensor(chunks), 1)
