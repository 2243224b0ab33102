"""What the bench measures with: worlds whose memory is full, and a stopwatch that alternates between several works.

Alternating, because machines drift: a ratio of two works that ran one after the other also measures the minutes
between them.

Shapes: B worlds, F frames of a step, n latents of a step, T latents, H, W pixels, Y, X latent cells.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from world_model.camera import cell_intrinsics
from world_model.live_camera import chunk_camera
from world_model.memory import read_memory
from world_model.model import WorldModel
from world_model.state import WorldState
from world_model.transformer import BlockCache, Conditions

SPEED = 0.02  # metres a frame that the camera of a workload moves ahead


@dataclass(frozen=True)
class Samples:
    """Wall-clock times of one work, in milliseconds."""

    milliseconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.milliseconds)

    def quantile(self, share: float) -> float:
        """The smallest sample that `share` of all samples do not exceed."""
        return sorted(self.milliseconds)[max(0, int(np.ceil(share * len(self.milliseconds))) - 1)]


def alternating(
    works: Mapping[str, Callable[[], object]],
    repeats: int,
    device: torch.device,
    label: str,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Samples]:
    """Every work once as a warm-up, then `repeats` rounds of all of them in turn: A B A B. clock: in seconds."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for turn in tqdm(range(-1, repeats), desc=label, leave=False):
        for name, work in works.items():
            synchronise(device)
            began = clock()
            work()
            synchronise(device)
            if turn >= 0:
                taken[name].append(1000 * (clock() - began))
    return {name: Samples(tuple(values)) for name, values in taken.items()}


def synchronise(device: torch.device) -> None:
    """Wait for what a GPU still has to do; a CPU has done it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def pictures(model: WorldModel, batch: int) -> np.ndarray:
    """(B, H, W, 3) uint8 noise of the model's own size: what a picture shows does not change what a step costs."""
    return np.random.default_rng(0).integers(0, 256, (batch, *model.size, 3), dtype=np.uint8)


def path(batch: int, frames: int) -> Tensor:
    """(B, F, 4, 4): a camera that moves straight ahead."""
    poses = torch.eye(4).repeat(batch, frames, 1, 1)
    poses[..., 2, 3] = SPEED * torch.arange(1, frames + 1)
    return poses


def full_worlds(model: WorldModel, batch: int) -> WorldState:
    """Worlds after so many steps that their window is full: from here on a step costs what every later one does."""
    config = model.config
    state, _ = model.reset(pictures(model, batch))
    for _ in range(1 + config.recent // config.block):
        state, _ = model.step(state, path(batch, config.frames_per_step))
    return state


@torch.no_grad()
def next_chunk(model: WorldModel, state: WorldState) -> tuple[Conditions, tuple[BlockCache, ...]]:
    """What the forwards of these worlds' next chunk share, made from their memory as a step makes it."""
    config = model.config
    camera, plucker = camera_ahead(model, state, config.block)
    cache, past, past_mask = read_memory(state, config)
    index = state.index[:, None] + torch.arange(config.block)
    given = model.transformer.condition(
        state.text, state.text_mask, camera, plucker, index.to(model.device), past=past, past_mask=past_mask
    )
    return given, cache


def camera_ahead(model: WorldModel, state: WorldState, latents: int) -> tuple[Tensor, Tensor]:
    """`camera` (B, T, 20) and `plucker` (B, 6*stride, T, Y, X) of the coming T latents."""
    tokenizer, stride = model.config.tokenizer, model.config.tokenizer.temporal_stride
    lens = cell_intrinsics(state.intrinsics, (tokenizer.height, tokenizer.width), tokenizer.grid)
    poses = path(len(state), latents * stride).to(model.device)
    return chunk_camera(state.pose, poses, lens, tokenizer.grid, stride, model.config.plucker_reference)
