"""What every objective that trains a world model comes to: figures on held-out clips, and a folder that plays."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import nn

from world_model.checkpoint import save_folder
from world_model.train import lora
from world_model.train.data.latents import open_latents
from world_model.train.flow_model import FlowModel, batch_of
from world_model.train.loop import RunConfig, generator
from world_model.train.measure import measure
from world_model.transformer import SanaWM
from world_model.vae import VideoTokenizer

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
    tokenizer: VideoTokenizer,
    module: nn.Module,
    student: str = "",
    *,
    mode: str = "streaming",
) -> tuple[Callable[[nn.Module], Figures], Callable[[nn.Module, Path], None]]:
    """`validate` and `export` for loop.fit, of a world model that is, or is a part of, the module that is trained.

    student: the part's name. The held-out clips are drawn once; mode: how they are played. Low-rank updates are folded
    into what is exported.
    """
    device = config.run.device
    tokenizer.to(device)
    held_out, draw = open_latents(Path(config.validation)), generator(0, 0, "held-out")
    words = _flow_model(module, student).text
    fixed = batch_of(held_out, words, config.validation_clips, config.validation_latents, draw, 0.0).tensors

    def validate(module: nn.Module) -> Figures:
        tensors = {name: x.to(device) for name, x in fixed.items()}
        return measure(_flow_model(module, student), tokenizer, tensors, mode)

    def export(module: nn.Module, folder: Path) -> None:
        model = _flow_model(module, student)
        transformer = SanaWM(model.config.transformer)
        transformer.load_state_dict(lora.merged_weights(model.transformer))
        save_folder(folder, model.config, (transformer, tokenizer, model.text), torch.bfloat16)

    return validate, export


def _flow_model(module: nn.Module, student: str) -> FlowModel:
    found = module.get_submodule(student)
    assert isinstance(found, FlowModel)
    return found
