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
from world_model.config import WorldConfig
from world_model.errors import InputError
from world_model.presets import sana_wm
from world_model.released import load_released
from world_model.train import lora, snapshot
from world_model.train.aim import aim_heads
from world_model.train.data.latents import WindowSource, open_latents
from world_model.train.data.text_features import TextFeatures
from world_model.train.flow_model import FlowModel, FlowRun, batch_of, rollout_share
from world_model.train.initialise import whiten_plucker
from world_model.train.loop import Batch, fit, generator
from world_model.train.losses import flow_loss
from world_model.train.outcome import measure_and_export
from world_model.train.tokenizer import load_tokenizer
from world_model.vae import VideoTokenizer
from world_model.weights import load_strictly, read_safetensors


def train(config: FlowRun) -> None:
    """Train, and export a folder: for `WorldModel.from_pretrained`, or of a transformer alone (train/outcome.py)."""
    model, tokenizer, data = prepare(config)

    def loss(module: nn.Module, tensors: Mapping[str, Tensor], noise: torch.Generator):
        assert isinstance(module, FlowModel)
        return flow_loss(module, tensors, noise, config)

    validate, export = measure_and_export(config, tokenizer, model, mode=config.mode)
    fit(
        config.run,
        model,
        loss,
        lambda step: batch_at(config, model, data, step),
        validate=validate,
        export=export,
        whole_clips=config.mode != "streaming",
        remakes_frozen=config.lora_rank > 0,
    )


def prepare(config: FlowRun) -> tuple[FlowModel, VideoTokenizer | None, WindowSource]:
    """The model as training begins with it, the tokenizer of its latents if this package has it, and the data."""
    world = sana_wm() if config.world == sana_wm().name else config_from_json(Path(config.world).read_text())
    tokenizer, text = tokenizer_and_text(config, world)
    torch.manual_seed(config.run.seed)
    weight = torch.ones(world.transformer.latent_channels) if tokenizer is None else tokenizer.sensitivity()
    model = FlowModel(world, weight, text)
    if config.run.init:
        continue_from(model, Path(config.run.init))
    data = open_latents(Path(config.data))
    if text is not None:
        text.require(data.captions)
    if not config.run.init:
        samples = batch_of(data, model.text, 64, config.latents, generator(config.run.seed, 0, "rays"), 0.0)
        rays = cameras(model.clips(samples.tensors), world)[1][:, :, 1:]  # (B, 6*stride, T-1, Y, X)
        whiten_plucker(model.transformer, rays.movedim(1, -1).flatten(0, -2))
    if config.aim:
        aim_heads(model.transformer)
    if config.lora_rank:
        lora.hold_in(model.transformer, getattr(torch, config.frozen_dtype))
        lora.add_updates(model.transformer, config.lora_rank)

    return model, tokenizer, data


def batch_at(config: FlowRun, model: FlowModel, data: WindowSource, step: int) -> Batch:
    """The clips of a step."""
    draw, share = generator(config.run.seed, step, "clips"), rollout_share(config, step)
    return batch_of(data, model.text, config.run.batch, config.latents, draw, share, config.span)


def tokenizer_and_text(config: FlowRun, world: WorldConfig) -> tuple[VideoTokenizer | None, TextFeatures | None]:
    """What a run reads besides latents: the tokenizer of a world with words of its own, the text features of another.

    Raises InputError when the one is given for the other.
    """
    wordy = world.text.kind == "words"
    if bool(config.tokenizer) != wordy or bool(config.text) == wordy:
        needed = "a tokenizer and no text features" if wordy else "text features and no tokenizer"
        raise InputError(
            f"flow: expected {needed} for a world whose text is of kind {world.text.kind!r}, "
            f"got tokenizer {config.tokenizer!r} and text {config.text!r}"
        )
    if wordy:
        return load_tokenizer(Path(config.tokenizer)), None
    return None, TextFeatures(world.text, Path(config.text))


def continue_from(model: FlowModel, path: Path) -> None:
    """Start from trained weights; those of a transformer alone may have any layout that was released.

    Raises CheckpointError when they are missing, broken or of another model.
    """
    if isinstance(model.text, TextFeatures) and not (path / snapshot.MANIFEST).exists():
        load_released(model.transformer, path)
    else:
        load_strictly(model, weights_to_continue(path), str(path))


def weights_to_continue(path: Path) -> dict[str, Tensor]:
    """The trained tensors of a shipped model folder, of a snapshot, or of a .safetensors file of the whole.

    Raises CheckpointError when they are missing or broken.
    """
    if not (path / "config.json").exists():
        return snapshot.read_weights(path)
    parts = {part: read_safetensors(path / f"{part}.safetensors") for part in ("transformer", "text")}
    return {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}
