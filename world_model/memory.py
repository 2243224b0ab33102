"""From a world's memory to the transformer's caches, and back: sink, recent window and recurrent states.

A chunk's softmax blocks see the sink (the first chunk) and the chunks of the last `recent` latents; its delta-rule
blocks continue from the chunk before (streaming, 5.2).
"""

import dataclasses

import torch
from torch import Tensor

from world_model.attention import DeltaCache, SoftmaxCache
from world_model.config import WorldConfig
from world_model.state import WindowEntry, WorldState
from world_model.transformer import BlockCache
from world_model.tree import map_tensors


def read_memory(state: WorldState, config: WorldConfig) -> tuple[tuple[BlockCache, ...], int, Tensor | None]:
    """The caches for the next chunk, the number of past tokens of softmax blocks, and which of those exist.

    The mask (B, P) bool is None when every world has every token.
    """
    window = state.window
    model = config.transformer
    if window:
        pasts = iter([map_tensors(lambda *xs: torch.cat(xs, 2), *ps) for ps in zip(*(e.blocks for e in window))])  # noqa: B905
    else:
        nothing = state.pose.new_zeros(len(state), model.heads, 0, model.head_dim)
        pasts = iter([SoftmaxCache(nothing, nothing, nothing, nothing)] * model.depth)
    deltas = iter(state.delta)
    caches = tuple(
        BlockCache(next(pasts) if model.is_softmax(i) else next(deltas), tail) for i, tail in enumerate(state.tails)
    )
    mask = None
    if not all(entry.there.all() for entry in window):
        mask = torch.cat([entry.there[:, None].expand(-1, entry.tokens) for entry in window], 1)
        mask = mask.to(state.pose.device)
    return caches, sum(entry.tokens for entry in window), mask


def write_memory(state: WorldState, written: tuple[BlockCache, ...], config: WorldConfig) -> WorldState:
    """The state after a chunk whose clean forward wrote `written`."""
    caches = [map_tensors(lambda x: x[:, -1].contiguous(), b.mixer) for b in written if is_delta(b)]
    keys_values = tuple(map_tensors(Tensor.contiguous, b.mixer) for b in written if not is_delta(b))
    entry = WindowEntry(torch.ones(len(state), dtype=torch.bool), keys_values)
    recent = config.recent // config.block
    sink, later = state.window[:1], (*state.window[1:], entry)
    return dataclasses.replace(
        state,
        delta=tuple(caches),
        tails=tuple(b.feed_forward[:, -1].contiguous() for b in written),
        window=(*sink, *later[max(len(later) - recent, 0) :]) if sink else (entry,),
    )


def is_delta(block: BlockCache) -> bool:
    return isinstance(block.mixer, DeltaCache)
