"""The second stage: some noise is put over what the world model made, and taken off again with a memory of its own.

A world model that goes on from its own output drifts and blurs. The refiner is the same transformer, trained to go from
such output back to what was true. It plays a world of its own along the same path: its chunks begin at the endpoint
x1 = (1 - s) z + s noise of the first stage's latents z instead of at pure noise, and end in refined latents, which are
what it remembers. The path from truth to endpoint is straight, x(a) = (1 - a) truth + a x1, so that at sigma = a s the
velocity is (x1 - truth) / s throughout and the ordinary sampler walks it (training, 6; streaming, 6).

The first stage goes on from its own latents, not from refined ones: with or without a refiner it plays the same world.

In a model's folder a refiner is `refiner.json` and `refiner.safetensors`.

Shapes: B worlds or clips, C latent channels, T latents, Y, X cells.
"""

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from world_model.checkpoint import config_from_json, config_to_json
from world_model.config import WorldConfig
from world_model.dynamics import advance
from world_model.errors import CheckpointError, InputError
from world_model.sampler import latent_noise
from world_model.state import WorldState
from world_model.transformer import SanaWM
from world_model.weights import load_strictly, read_safetensors

log = logging.getLogger(__name__)
OWN = ("name", "transformer", "steps", "recent")  # what a refiner's config does not share with its world model's


@dataclass(frozen=True)
class Refiner:
    """config: the world model's, but for the transformer, the window, and steps that begin at the endpoint's noise."""

    config: WorldConfig
    transformer: SanaWM

    @property
    def start(self) -> float:
        """The share of noise in the endpoint."""
        return self.config.steps[0] / 1000

    def cost(self) -> str:
        """What it adds, for people."""
        weights = sum(p.numel() for p in self.transformer.parameters())
        return f"{weights / 1e6:.2f} M parameters, {len(self.config.steps)} forwards a chunk"


def endpoint(made: Tensor, noise: Tensor, start: float) -> Tensor:
    """Where refining begins: the first stage's latents under a share `start` of noise, in float32."""
    return (1 - start) * made.float() + start * noise.float()


def on_path(truth: Tensor, end: Tensor, sigma: Tensor, start: float) -> Tensor:
    """The state at noise level sigma (B, T) in 0..start, between the truth and an endpoint, (B, C, T, Y, X) each."""
    share = sigma[:, None, :, None, None] / start
    return (1 - share) * truth + share * end


def refine(refiner: Refiner, world: WorldState, made: Tensor, path: Tensor) -> tuple[WorldState, Tensor]:
    """The refiner's own world one chunk later, and the refined latents of `made` (B, C, n, Y, X).

    path (B, F, 4, 4) float32, the poses of the chunk. The noise is a function of (seed, latent index), another one
    than the first stage's.
    """
    first = world.index.clamp_min(1)
    index = first[:, None] + torch.arange(made.shape[2])
    noise = latent_noise(world.seed, index, (made.shape[1], *made.shape[3:]), "refiner")
    end = endpoint(made, noise.to(made.device), refiner.start).to(made.dtype)
    return advance(refiner.transformer, refiner.config, world, path, end)


def refiner_config(world: WorldConfig, steps: tuple[int, ...], depth: int = 0) -> WorldConfig:
    """The config of a refiner for a world model. steps: model times from 1000 * start to 0; depth: blocks, 0 for as
    many as the world model's. Raises InputError for more, or for steps that start at pure noise.
    """
    if not 0 <= depth <= world.transformer.depth:
        raise InputError(f"depth: expected at most the world model's {world.transformer.depth} blocks, got {depth}")
    if not steps or not 0 < steps[0] < 1000:
        raise InputError(f"steps: expected a refiner to start above 0 and below 1000, got {steps}")
    transformer = dataclasses.replace(world.transformer, depth=depth or world.transformer.depth)
    return dataclasses.replace(world, name=f"{world.name}-refiner", transformer=transformer, steps=steps)


def save_refiner(folder: Path, refiner: Refiner, dtype: torch.dtype) -> None:
    """Put a refiner, weights in `dtype`, beside the world model of a folder."""
    (folder / "refiner.json").write_text(config_to_json(refiner.config))
    weights = refiner.transformer.state_dict()
    save_file({k: v.detach().to(dtype).cpu().contiguous() for k, v in weights.items()}, folder / "refiner.safetensors")


def load_refiner(folder: Path, world: WorldConfig) -> Refiner:
    """The refiner of a model's folder, in float32.

    Raises CheckpointError when there is none, or when it is broken or of another world model.
    """
    path = folder / "refiner.json"
    try:
        config = config_from_json(path.read_text())
    except (OSError, InputError) as error:
        raise CheckpointError(f"{path}: expected a refiner's config, got: {error}") from error
    shared = {name: value for name, value in vars(world).items() if name not in OWN}
    for name, expected in shared.items():
        if getattr(config, name) != expected:
            raise CheckpointError(f"{path}: expected the world model's {name}, {expected}, got {getattr(config, name)}")
    transformer = SanaWM(config.transformer)
    load_strictly(transformer, read_safetensors(folder / "refiner.safetensors"), str(folder / "refiner"))
    return Refiner(config, transformer)
