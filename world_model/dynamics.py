"""Worlds in latent space: made of a start latent, moved a chunk at a time. No pixels and no text encoder here.

Functions of a transformer, a config and values, so that training rolls out the weights that it is changing.

Shapes: B worlds, F frames of a step, n latents of a step, C latent channels, Y, X latent cells, L words, E channels.
"""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from world_model.attention import DeltaCache, Grid
from world_model.camera import cell_intrinsics
from world_model.checks import check_seeds
from world_model.config import WorldConfig
from world_model.lanes import in_lanes
from world_model.live_camera import chunk_camera, start_camera
from world_model.memory import read_memory, write_memory
from world_model.sampler import Sampler, sample_chunk
from world_model.state import WorldState
from world_model.transformer import BlockCache, Conditions, SanaWM
from world_model.tree import map_tensors


def new_worlds(
    transformer: SanaWM,
    config: WorldConfig,
    start: Tensor,
    intrinsics: Tensor,
    text: Tensor,
    text_mask: Tensor,
    seeds: Sequence[int],
    model: str,
) -> WorldState:
    """Worlds before their first step: start (B, C, 1, Y, X), intrinsics (B, 4) pixels, text (B, L, E), mask (B, L).

    With `pending_start` the start latent waits for the first chunk, else one clean pass writes it to memory.
    """
    count, device = len(start), start.device
    caches = transformer.empty_cache(count, Grid(1, *start.shape[-2:], (1,)), start)
    state = WorldState(
        model=model,
        index=torch.zeros(count, dtype=torch.int64),
        decoded=torch.ones(count, dtype=torch.int64),  # frame 0 is known
        seed=check_seeds(seeds, count),
        pose=torch.eye(4, device=device).repeat(count, 1, 1),
        intrinsics=intrinsics.to(device),
        text=text,
        text_mask=text_mask.to(device),
        start=start,
        previous=start,
        delta=tuple(c.mixer for c in caches if isinstance(c.mixer, DeltaCache)),
        tails=tuple(c.feed_forward for c in caches),
        window=(),
    )
    if config.pending_start:
        return state
    camera, plucker = start_camera(_cells(state, config), config.tokenizer.grid, config.tokenizer.temporal_stride)
    given, cache = _condition(transformer, config, state, camera, plucker)
    _, written = transformer(start, torch.zeros(count, 1, device=device), given, cache)
    return dataclasses.replace(write_memory(state, written, config), index=state.index + 1)


def advance(
    transformer: SanaWM,
    config: WorldConfig,
    state: WorldState,
    path: Tensor,
    noise: Tensor,
    sample: Sampler = sample_chunk,
    lanes: int = 1,
) -> tuple[WorldState, Tensor]:
    """The worlds one chunk later and its new latents (B, C, n, Y, X).

    path (B, F, 4, 4) float32, one pose a coming frame; noise (B, C, n, Y, X). Worlds before and after their first
    chunk differ in length: they go as two forwards and come back in order. sample: how a chunk comes from its noise.
    lanes: forwards at once, each of some of the worlds; more than one carries no gradient.
    """
    pending = [i for i, index in enumerate(state.index.tolist()) if index == 0]
    if len(pending) in (0, len(state)):
        return _advance_phase(transformer, config, state, path, noise, sample, lanes)
    running = [i for i in range(len(state)) if i not in pending]
    parts = [
        _advance_phase(transformer, config, state[g], path[g], noise[g], sample, min(lanes, len(g)))
        for g in (pending, running)
    ]
    order = torch.tensor(pending + running).argsort().tolist()
    return WorldState.cat([part[0] for part in parts])[order], torch.cat([part[1] for part in parts])[order]


def _advance_phase(
    transformer: SanaWM,
    config: WorldConfig,
    state: WorldState,
    path: Tensor,
    noise: Tensor,
    sample: Sampler,
    lanes: int,
) -> tuple[WorldState, Tensor]:
    pending = bool(state.index[0] == 0)

    def denoise(worlds: slice) -> tuple[Tensor, tuple[BlockCache, ...]]:
        some = map_tensors(lambda x: x[worlds], state)
        return _denoise(transformer, config, some, path[worlds], noise[worlds], sample, pending)

    latents, written = in_lanes(denoise, len(state), lanes)
    after = write_memory(state, written, config)
    after = dataclasses.replace(after, index=state.index + latents.shape[2], pose=path[:, -1].clone())
    return after, latents[:, :, -config.block :]


def _denoise(
    transformer: SanaWM,
    config: WorldConfig,
    state: WorldState,
    path: Tensor,
    noise: Tensor,
    sample: Sampler,
    pending: bool,
) -> tuple[Tensor, tuple[BlockCache, ...]]:
    """The chunk's latents, the start latent first where it was pending, and what their clean pass wrote."""
    grid, stride = config.tokenizer.grid, config.tokenizer.temporal_stride
    lens = _cells(state, config)
    camera, plucker = chunk_camera(state.pose, path, lens, grid, stride, config.plucker_reference)
    start = None
    if pending:
        start = state.start
        seen = torch.cat([state.pose[:, None], path[:, : stride - 1]], 1)
        first = start_camera(lens, grid, stride, seen if config.first_plucker == "overlap" else None)
        camera, plucker = torch.cat([first[0], camera], 1), torch.cat([first[1], plucker], 2)
        noise = torch.cat([start, noise], 2)
    given, cache = _condition(transformer, config, state, camera, plucker)
    return sample(transformer, given, cache, noise, config.steps, start)


def _cells(state: WorldState, config: WorldConfig) -> Tensor:
    tokenizer = config.tokenizer
    return cell_intrinsics(state.intrinsics, (tokenizer.height, tokenizer.width), tokenizer.grid)


def _condition(
    transformer: SanaWM, config: WorldConfig, state: WorldState, camera: Tensor, plucker: Tensor
) -> tuple[Conditions, tuple[BlockCache, ...]]:
    cache, past, past_mask = read_memory(state, config)
    frame_index = (state.index[:, None] + torch.arange(camera.shape[1])).to(camera.device)
    given = transformer.condition(
        state.text, state.text_mask, camera, plucker, frame_index, past=past, past_mask=past_mask
    )
    return given, cache
