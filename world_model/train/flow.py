"""Training of the world model proper: flow matching on latents, with context that looks like what streaming makes.

What a world remembers at play is its own output. So the context is corrupted a little in some clips, and replaced by
the model's own rollout in a share of them that grows from nothing; the targets stay true, which teaches the way back.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from world_model.checkpoint import config_from_json
from world_model.clips import cameras
from world_model.train import lora, snapshot
from world_model.train.data.latents import open_latents
from world_model.train.flow_model import FlowModel, FlowRun, batch_of, rollout_share
from world_model.train.initialise import whiten_plucker
from world_model.train.loop import Batch, fit, generator
from world_model.train.losses import flow_loss
from world_model.train.outcome import measure_and_export
from world_model.train.tokenizer import load_tokenizer
from world_model.weights import load_strictly, read_safetensors


def train(config: FlowRun) -> None:
    """Train, and export a folder for `WorldModel.from_pretrained`."""
    world = config_from_json(Path(config.world).read_text())
    tokenizer = load_tokenizer(Path(config.tokenizer))
    torch.manual_seed(config.run.seed)
    model = FlowModel(world, tokenizer.sensitivity())
    if config.run.init:
        load_strictly(model, weights_to_continue(Path(config.run.init)), config.run.init)
    data = open_latents(Path(config.data))
    if not config.run.init:
        samples = batch_of(data, model.text, 64, config.latents, generator(config.run.seed, 0, "rays"), 0.0)
        rays = cameras(model.clips(samples.tensors), world)[1][:, :, 1:]  # (B, 6*stride, T-1, Y, X)
        whiten_plucker(model.transformer, rays.movedim(1, -1).flatten(0, -2))
    if config.lora_rank:
        lora.add_updates(model.transformer, config.lora_rank)

    def sample_batch(step: int) -> Batch:
        draw = generator(config.run.seed, step, "clips")
        return batch_of(data, model.text, config.run.batch, config.latents, draw, rollout_share(config, step))

    def loss(module: nn.Module, tensors: Mapping[str, Tensor], noise: torch.Generator):
        assert isinstance(module, FlowModel)
        return flow_loss(module, tensors, noise, config)

    validate, export = measure_and_export(config, tokenizer, model, mode=config.mode)
    fit(config.run, model, loss, sample_batch, validate=validate, export=export, whole_clips=config.mode != "streaming")


def weights_to_continue(path: Path) -> dict[str, Tensor]:
    """The trained tensors of a shipped model folder, of a snapshot, or of a .safetensors file of the whole.

    Raises CheckpointError when they are missing or broken.
    """
    if not (path / "config.json").exists():
        return snapshot.read_weights(path)
    parts = {part: read_safetensors(path / f"{part}.safetensors") for part in ("transformer", "text")}
    return {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}
