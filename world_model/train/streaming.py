"""Flow matching for one-latent chunks, in the form in which a world streams them.

One causal call over the clean context writes the caches of every chunk; one batched call denoises every chunk, as a
world of its own, from the cache of its past. That second call is the streaming forward itself, so training sees what
streaming sees, and gradients flow through the caches into what was written.

Shapes: B clips, T latents of a clip, C channels, Y, X cells, S = Y*X, W = B*(T-1) worlds, L words.
"""

import torch
from torch import Tensor

from world_model.attention import SoftmaxCache
from world_model.clips import Clips, cameras
from world_model.config import WorldConfig
from world_model.errors import InputError
from world_model.transformer import BlockCache, SanaWM
from world_model.tree import map_tensors


def velocities(
    transformer: SanaWM, config: WorldConfig, clips: Clips, context: Tensor, noisy: Tensor, time: Tensor
) -> Tensor:
    """What the model predicts for every chunk from the cache of its past, (B, C, T-1, Y, X).

    context (B, C, T, Y, X): the latents that the caches are written from; noisy (B, C, T-1, Y, X) at time (B, T-1).
    Raises InputError for a config whose chunks are longer than one latent or whose start is pending.
    """
    if config.block != 1 or config.pending_start:
        raise InputError(f"expected a config with block=1 and no pending start, got block={config.block}")
    camera, plucker = cameras(clips, config)
    count, later = context.shape[0], context.shape[2] - 1
    past = slice(0, later)  # nothing follows the last chunk: its cache would go unread
    given = transformer.condition(
        clips.text,
        clips.text_mask,
        camera[:, past],
        plucker[:, :, past],
        clips.frame_index[:, past],
        chunks=(1,) * later,
        recent=config.recent,
    )
    _, written = transformer(context[:, :, past], torch.zeros(count, later, device=context.device), given)

    repeat = lambda x: x.repeat_interleave(later, 0)  # noqa: E731
    window, exists = window_indices(later + 1, config.recent, context.device)
    caches = tuple(past_of_every_chunk(block, window, given.grid.tokens) for block in written)
    mask = exists.repeat_interleave(given.grid.tokens, 1).repeat(count, 1)  # (W, P)
    given = transformer.condition(
        repeat(clips.text),
        repeat(clips.text_mask),
        as_worlds(camera[:, 1:, None]),
        as_worlds(plucker[:, :, 1:].transpose(1, 2)[:, :, :, None]),
        as_worlds(clips.frame_index[:, 1:, None]),
        past=mask.shape[1],
        past_mask=mask,
    )
    worlds = as_worlds(noisy.transpose(1, 2)[:, :, :, None])  # (W, C, 1, Y, X)
    velocity, _ = transformer(worlds, as_worlds(time[..., None]), given, caches)
    return velocity.unflatten(0, (count, later))[:, :, :, 0].transpose(1, 2)


def as_worlds(x: Tensor) -> Tensor:  # (B, T-1, ...) -> (W, ...)
    return x.flatten(0, 1)


def window_indices(frames: int, recent: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """For chunks 1..T-1: the chunks that softmax sees (T-1, 1 + r), sink first, and which of those exist."""
    chunk = torch.arange(1, frames, device=device)[:, None]
    width = min(recent, frames - 2)
    recents = chunk - torch.arange(width, 0, -1, device=device)
    sink = torch.zeros_like(chunk)
    exists = torch.cat([sink == 0, recents > 0], 1)  # the sink is not also a recent chunk
    return torch.cat([sink, recents.clamp_min(0)], 1), exists


def past_of_every_chunk(written: BlockCache, window: Tensor, tokens: int) -> BlockCache:
    """What a causal call over T-1 chunks wrote, as the caches of W worlds: those of the chunk after each."""
    tails = as_worlds(written.feed_forward)
    if not isinstance(written.mixer, SoftmaxCache):
        return BlockCache(map_tensors(as_worlds, written.mixer), tails)

    def gather(x: Tensor) -> Tensor:  # (B, H, (T-1)*S, D) -> (W, H, P, D)
        frames = x.unflatten(2, (-1, tokens)).transpose(1, 2)  # (B, T-1, H, S, D)
        seen = frames[:, window.flatten()].unflatten(1, window.shape)  # (B, T-1, r, H, S, D)
        return as_worlds(seen.transpose(2, 3).flatten(3, 4))

    return BlockCache(map_tensors(gather, written.mixer), tails)
