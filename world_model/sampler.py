"""One chunk by flow matching: a few Euler steps from noise, then a clean pass that writes the cache (streaming, 3)."""

import hashlib
import itertools
from typing import Protocol

import torch
from torch import Tensor

from world_model.errors import InputError
from world_model.transformer import BlockCache, Conditions, SanaWM


class Sampler(Protocol):
    """How a chunk is made of noise: `sample_chunk`, or another with its arguments and results."""

    def __call__(
        self,
        transformer: SanaWM,
        given: Conditions,
        cache: tuple[BlockCache, ...],
        noise: Tensor,
        steps: tuple[int, ...],
        start: Tensor | None = None,
    ) -> tuple[Tensor, tuple[BlockCache, ...]]: ...


def sample_chunk(
    transformer: SanaWM,
    given: Conditions,
    cache: tuple[BlockCache, ...],
    noise: Tensor,
    steps: tuple[int, ...],
    start: Tensor | None = None,
) -> tuple[Tensor, tuple[BlockCache, ...]]:
    """Clean latents (B, C, T, Y, X) of the shape of `noise`, and what their clean pass wrote.

    steps: model times from noise (1000) to data (0), used verbatim. start (B, C, 1, Y, X): a clean first latent frame
    that stays as it is. The cache is only read, so every step sees the same past.
    """
    moving = torch.ones(noise.shape[0], noise.shape[2], device=noise.device)  # (B, T)
    latents = noise
    if start is not None:
        moving[:, 0] = 0
        latents = torch.cat([start, noise[:, :, 1:]], 2)
    for now, then in itertools.pairwise(steps):
        velocity, _ = transformer(latents, moving * now, given, cache)
        change = moving[:, None, :, None, None] * ((now - then) / 1000)
        latents = (latents.float() - change * velocity.float()).to(noise.dtype)
    _, written = transformer(latents, moving * 0, given, cache)
    return latents, written


def chunk_grid(frames: int, block: int) -> tuple[int, ...]:
    """Latent frames of each chunk of a clip whose length is known: the first takes the remainder (streaming, 1).

    A live world has no length; its chunks are those of any clip of 1 + n*block frames. Raises InputError for a clip
    of one chunk or less, which is no matter for streaming.
    """
    if frames <= block:
        raise InputError(f"frames: expected more than one chunk of {block} latents, got {frames}")
    return (block + frames % block, *[block] * (frames // block - 1))


def latent_noise(seeds: Tensor, indices: Tensor, shape: tuple[int, ...], stage: str = "sana-wm") -> Tensor:
    """Standard normal noise of latent frames, a function of (stage, seed, latent index) alone.

    seeds (B,), indices (B, T), shape (C, Y, X) -> (B, C, T, Y, X) float32 on the CPU: the same on every device, in
    every batch, in every order.
    """
    frames = [
        torch.stack([_frame_noise(stage, seed, index, shape) for index in row], 1)
        for seed, row in zip(seeds.tolist(), indices.tolist(), strict=True)
    ]
    return torch.stack(frames)


def _frame_noise(stage: str, seed: int, index: int, shape: tuple[int, ...]) -> Tensor:
    digest = hashlib.blake2b(f"{stage} {seed} {index}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
    return torch.randn(shape, generator=generator)
