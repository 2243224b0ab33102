"""First stage of distillation: regress the teacher's end points from points of its trajectories (training, 5.1).

Every chunk of a clip is shown at its own one of the student's step times and has to name the data at the end.

Shapes: B clips, K snapshots, n chunks, C channels, T latents, Y, X cells.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from world_model import whole_clip
from world_model.checkpoint import load_folder
from world_model.errors import InputError
from world_model.train import streaming
from world_model.train.flow_model import FlowModel
from world_model.train.loop import Batch, RunConfig, fit, generator
from world_model.train.outcome import measure_and_export
from world_model.train.trajectories import load_model, open_trajectories


@dataclass(frozen=True, kw_only=True)
class OdeRun:
    """`python -m world_model.train ode`."""

    run: RunConfig
    student: str  # model folder to start from
    data: str  # folder of trajectories
    validation: str  # folder of encoded held-out episodes
    mode: str = "streaming"  # a chunk after a cache of clean ones; "chunk_causal": one pass, as published
    validation_clips: int = 16
    validation_latents: int = 17

    def __post_init__(self) -> None:
        if self.mode not in ("streaming", "chunk_causal"):
            raise InputError(f"mode: expected 'streaming' or 'chunk_causal', got {self.mode!r}")


def train(config: OdeRun) -> None:
    """Train, and export a folder for `WorldModel.from_pretrained`."""
    torch.manual_seed(config.run.seed)
    world, (_, tokenizer, _) = load_folder(Path(config.student))
    model = load_model(Path(config.student))
    data = open_trajectories(Path(config.data), world)

    def sample_batch(step: int) -> Batch:
        draw = generator(config.run.seed, step, "trajectories")
        return Batch(tensors=data.sample(config.run.batch, draw), ids=(f"{config.data}, draw {step}",))

    def loss(module: nn.Module, tensors: Mapping[str, Tensor], draw: torch.Generator):
        assert isinstance(module, FlowModel)
        return ode_loss(module, tensors, draw, config.mode)

    validate, export = measure_and_export(config, tokenizer, model, mode=config.mode)
    fit(config.run, model, loss, sample_batch, validate=validate, export=export)


def ode_loss(
    model: FlowModel, tensors: Mapping[str, Tensor], draw: torch.Generator, mode: str
) -> tuple[Tensor, dict[str, Tensor]]:
    """Squared error of data predicted from snapshots, over all latents but the start; and none beside."""
    snapshots = tensors["snapshots"]  # (B, K, C, T, Y, X)
    frames, data = snapshots.shape[3], snapshots[:, -1]
    config = model.config
    chunks = whole_clip.training_chunks(frames, config)
    shown = torch.randint(len(config.steps) - 1, (len(data), len(chunks)), generator=draw).to(data.device)  # (B, n)
    shown = shown.repeat_interleave(torch.tensor(chunks, device=data.device), 1)  # (B, T)
    noisy = snapshots.gather(1, shown[:, None, None, :, None, None].expand_as(data[:, None]))[:, 0]
    time = torch.tensor(config.steps, device=data.device, dtype=torch.float32)[shown]
    time[:, 0] = 0  # the start is given; every snapshot holds it clean
    clips = model.clips({**tensors, "latents": data})
    if mode == "streaming":
        velocity = streaming.velocities(model.transformer, config, clips, data, noisy[:, :, 1:], time[:, 1:])
    else:
        velocity = whole_clip.velocities(model.transformer, config, clips, noisy, time, chunks)[:, :, 1:]
    predicted = noisy[:, :, 1:] - time[:, None, 1:, None, None] / 1000 * velocity.float()
    return (model.channel_weight * (predicted - data[:, :, 1:]).square()).mean(), {}
