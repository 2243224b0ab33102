"""Whole clips in one pass: velocities, and the many-step sampler with guidance that teachers use.

In one chunk a clip is bidirectional; in several, each chunk sees itself and the chunks before it.

Shapes: B clips, T latents, C channels, Y, X cells.
"""

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from world_model.clips import Clips, cameras, wordless
from world_model.config import WorldConfig
from world_model.errors import InputError
from world_model.sharding import ALL_FRAMES, AllFrames
from world_model.transformer import SanaWM


def velocities(
    transformer: SanaWM,
    config: WorldConfig,
    clips: Clips,
    noisy: Tensor,
    time: Tensor,
    chunks: tuple[int, ...],
    held: AllFrames = ALL_FRAMES,
) -> Tensor:
    """Velocity (noise - data) of latents of clips, (B, C, T, Y, X); noisy (B, C, T, Y, X) at time (B, T).

    held: which of these frames this worker holds, and answers for; default all.
    """
    camera, plucker = cameras(clips, config)
    given = transformer.condition(
        clips.text,
        clips.text_mask,
        held.cut(camera, 1),
        held.cut(plucker, 2),
        held.cut(clips.frame_index, 1),
        chunks=chunks,
        held=held,
    )
    return transformer(held.cut(noisy, 2), held.cut(time, 1), given)[0]


def guided_velocities(
    transformer: SanaWM,
    config: WorldConfig,
    clips: Clips,
    noisy: Tensor,
    time: Tensor,
    chunks: tuple[int, ...],
    guidance: float,
) -> Tensor:
    """Velocities pushed `guidance` times as far from those without a prompt; at 1 the prompt's own.

    The cameras are the same in both (architecture, 16.1).
    """
    told = velocities(transformer, config, clips, noisy, time, chunks)
    if guidance == 1:
        return told
    untold = velocities(transformer, config, wordless(clips), noisy, time, chunks)
    return untold + guidance * (told - untold)


def euler_times(steps: int, shift: float, through: Sequence[float] = ()) -> tuple[float, ...]:
    """Falling model times from 1000 to 0: `steps` equal steps, shifted towards noise, and every time in `through`."""
    if steps < 1 or any(not 0 <= time <= 1000 for time in through):
        raise InputError(f"expected steps >= 1 and times in 0..1000, got {steps} and {tuple(through)}")
    even = [1 - step / steps for step in range(steps + 1)]
    shifted = [1000 * (shift * sigma / (1 + (shift - 1) * sigma)) for sigma in even]
    return tuple(sorted({*shifted, *(float(time) for time in through)}, reverse=True))


@torch.no_grad()
def denoise(
    transformer: SanaWM,
    config: WorldConfig,
    clips: Clips,
    noise: Tensor,
    times: Sequence[float],
    *,
    guidance: float = 1.0,
    chunks: tuple[int, ...] | None = None,
) -> Iterator[tuple[float, Tensor]]:
    """From noise (B, C, T, Y, X) to data: yields (time, latents) at each of the falling `times`, by Euler steps.

    The start latent is that of `clips` at every time; their other latents are not looked at. chunks: default one.
    """
    moving = (torch.arange(noise.shape[2], device=noise.device) > 0).to(noise).expand(len(noise), -1)  # (B, T)
    latents = torch.cat([clips.latents[:, :, :1], noise[:, :, 1:]], 2)
    chunks = chunks or (noise.shape[2],)
    yield times[0], latents
    for now, then in itertools.pairwise(times):
        velocity = guided_velocities(transformer, config, clips, latents, moving * now, chunks, guidance)
        latents = latents - moving[:, None, :, None, None] * ((now - then) / 1000) * velocity
        yield then, latents


def training_chunks(frames: int, config: WorldConfig) -> tuple[int, ...]:
    """Latents of each chunk: the start's, then `block` each; a short tail joins the last (architecture, 9.5).

    Raises InputError for a clip of fewer than two chunks.
    """
    first, block = config.sink, config.block
    if frames < first + block:
        raise InputError(f"clip: expected at least {first + block} latents for two chunks, got {frames}")
    count, tail = divmod(frames - first, block)
    return (first, *[block] * (count - 1), block + tail)
