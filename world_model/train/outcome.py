"""What every objective that trains a world model comes to: figures on held-out clips, and a folder that plays."""

import operator
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import nn

from world_model.checkpoint import config_to_json, save_folder
from world_model.text import WordEncoder
from world_model.train import lora
from world_model.train.data.latents import open_latents
from world_model.train.flow_model import FlowModel, batch_of
from world_model.train.loop import RunConfig, generator
from world_model.train.measure import measure, measure_losses
from world_model.transformer import SanaWM
from world_model.vae import VideoTokenizer
from world_model.weights import write_safetensors

Figures = tuple[dict[str, float], dict[str, np.ndarray]]


class Measured(Protocol):
    """The settings that say what a run is measured on."""

    @property
    def run(self) -> RunConfig: ...
    @property
    def validation(self) -> str: ...  # folder of encoded held-out episodes
    @property
    def validation_clips(self) -> int: ...
    @property
    def validation_latents(self) -> int: ...


def measure_and_export(
    config: Measured,
    tokenizer: VideoTokenizer | None,
    module: nn.Module,
    student: str = "",
    *,
    mode: str = "streaming",
) -> tuple[Callable[[nn.Module], Figures], Callable[[nn.Module, Path], None]]:
    """`validate` and `export` for loop.fit, of a world model that is, or is a part of, the module that is trained.

    tokenizer: None where no part of this package decodes the latents: then only losses are measured and only the
    transformer is exported. student: the part's name. The held-out clips are drawn once; mode: how they are played.
    Low-rank updates are folded into what is exported.
    """
    device = config.run.device
    if tokenizer is not None:
        tokenizer.to(device)
    held_out, draw = open_latents(Path(config.validation)), generator(0, 0, "held-out")
    words = _flow_model(module, student).text
    fixed = batch_of(held_out, words, config.validation_clips, config.validation_latents, draw, 0.0).tensors

    def validate(module: nn.Module) -> Figures:
        tensors, model = {name: x.to(device) for name, x in fixed.items()}, _flow_model(module, student)
        half = any(weight.dtype == torch.bfloat16 for weight in model.parameters())  # such weights need autocast
        with torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=half):
            if tokenizer is None:
                return measure_losses(model, tensors, mode), {}
            return measure(model, tokenizer, tensors, mode)

    def export(module: nn.Module, folder: Path) -> None:
        model = _flow_model(module, student)
        if tokenizer is None:
            export_transformer(folder, model)
            return
        assert isinstance(model.text, WordEncoder)
        transformer = SanaWM(model.config.transformer)
        transformer.load_state_dict(lora.merged_weights(model.transformer))
        save_folder(folder, model.config, (transformer, tokenizer, model.text), torch.bfloat16)

    return validate, export


def export_transformer(folder: Path, model: FlowModel) -> None:
    """Write config.json and transformer.safetensors, which `released.load_released` reads, weight by weight.

    In float32: rounding to bfloat16 would swallow the updates that are smaller than half of a weight's last place.
    """
    with torch.device("meta"):
        plain = SanaWM(model.config.transformer)
    shapes = {name: tuple(weight.shape) for name, weight in plain.state_dict().items()}
    tensors = (operator.attrgetter(name)(model.transformer).detach().cpu() for name in shapes)  # updates folded in
    write_safetensors(folder / "transformer.safetensors", shapes, tensors, torch.float32)
    (folder / "config.json").write_text(config_to_json(model.config))


def _flow_model(module: nn.Module, student: str) -> FlowModel:
    found = module.get_submodule(student)
    assert isinstance(found, FlowModel)
    return found
