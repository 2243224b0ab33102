"""Training of the world model proper: flow matching on latents, with context that looks like what streaming makes.

What a world remembers at play is its own output. So the context is corrupted a little in some clips, and replaced by
the model's own rollout in a share of them that grows from nothing; the targets stay true, which teaches the way back.

Shapes: B clips, T latents, C channels, Y, X cells, F frames, L words.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from world_model.checkpoint import config_from_json, save_folder
from world_model.config import WorldConfig
from world_model.dynamics import advance, new_worlds
from world_model.errors import InputError
from world_model.pictures import sheet
from world_model.text import WordEncoder
from world_model.train import snapshot
from world_model.train.data.latents import LatentDataset, open_latents
from world_model.train.initialise import initialise, whiten_plucker
from world_model.train.loop import Batch, RunConfig, fit, generator
from world_model.train.objective import Clips, cameras, noised, select, shifted_logit_normal, velocities
from world_model.train.tokenizer import load_tokenizer
from world_model.transformer import SanaWM
from world_model.vae import VideoTokenizer
from world_model.weights import load_strictly, read_safetensors


@dataclass(frozen=True, kw_only=True)
class FlowRun:
    """`python -m world_model.train flow`."""

    run: RunConfig
    world: str  # config.json of the world model to train
    tokenizer: str  # folder of the tokenizer that made the latents
    data: str  # folder of encoded training episodes
    validation: str  # folder of encoded held-out episodes
    latents: int = 9  # a clip, the start latent included
    shift: float = 3.0  # of training times towards noise
    pure_noise: float = 0.25  # share of chunks at time 1000, where every step of play begins
    caption_dropout: float = 0.1
    context_noise: float = 0.25  # largest corruption of the context, in half of the clips
    rollout: float = 0.5  # share of clips whose context is the model's own rollout
    rollout_from: int = 1000  # step from which that share grows,
    rollout_full: int = 3000  # until it is reached
    gap: int = 256  # largest jump of the latent index after the start latent, in a quarter of the clips
    validation_clips: int = 16
    validation_latents: int = 17  # the start and four seconds

    def __post_init__(self) -> None:
        if self.latents < 3 or not 0 <= self.rollout <= 1 or self.rollout_full <= self.rollout_from:
            raise InputError(
                "flow: expected latents >= 3, rollout in 0..1 and rollout_full > rollout_from, "
                f"got {self.latents}, {self.rollout}, {self.rollout_full} and {self.rollout_from}"
            )


class FlowModel(nn.Module):
    """What is trained together: the transformer and the words it reads. channel_weight (C,): of the loss."""

    channel_weight: Tensor

    def __init__(self, config: WorldConfig, channel_weight: Tensor) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("channel_weight", channel_weight.detach().view(1, -1, 1, 1, 1), persistent=False)
        self.transformer, self.text = SanaWM(config.transformer), WordEncoder(config.text)
        initialise(self.transformer)

    def clips(self, tensors: Mapping[str, Tensor]) -> Clips:
        latents = tensors["latents"]
        index = torch.arange(latents.shape[2], device=latents.device).expand(len(latents), -1)
        text = self.text(tensors["ids"])
        return Clips(latents, tensors["poses"], tensors["intrinsics"], text, tensors["mask"], index)


def train(config: FlowRun) -> None:
    """Train, and export a folder for `WorldModel.from_pretrained`."""
    world = config_from_json(Path(config.world).read_text())
    tokenizer = load_tokenizer(Path(config.tokenizer)).to(config.run.device)
    torch.manual_seed(config.run.seed)
    model = FlowModel(world, tokenizer.sensitivity())
    if config.run.init:
        load_strictly(model, weights_to_continue(Path(config.run.init)), config.run.init)
    data, held_out = open_latents(Path(config.data)), open_latents(Path(config.validation))
    if not config.run.init:
        samples = batch_of(data, model.text, 64, config.latents, generator(config.run.seed, 0, "rays"), 0.0)
        rays = cameras(model.clips(samples.tensors), world)[1][:, :, 1:]  # (B, 6*stride, T-1, Y, X)
        whiten_plucker(model.transformer, rays.movedim(1, -1).flatten(0, -2))

    def sample_batch(step: int) -> Batch:
        draw = generator(config.run.seed, step, "clips")
        return batch_of(data, model.text, config.run.batch, config.latents, draw, rollout_share(config, step))

    def loss(module: nn.Module, tensors: Mapping[str, Tensor], noise: torch.Generator):
        assert isinstance(module, FlowModel)
        return flow_loss(module, tensors, noise, config)

    draw = generator(0, 0, "held-out")
    fixed = batch_of(held_out, model.text, config.validation_clips, config.validation_latents, draw, 0.0)

    def validate(module: nn.Module) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        assert isinstance(module, FlowModel)
        tensors = {name: x.to(config.run.device) for name, x in fixed.tensors.items()}
        return measure(module, tokenizer, tensors)

    def export(module: nn.Module, folder: Path) -> None:
        assert isinstance(module, FlowModel)
        save_folder(folder, world, (module.transformer, tokenizer, module.text), torch.bfloat16)

    fit(config.run, model, loss, sample_batch, validate=validate, export=export)


def weights_to_continue(path: Path) -> dict[str, Tensor]:
    """The trained tensors of a shipped model folder, of a snapshot, or of a .safetensors file of the whole.

    Raises CheckpointError when they are missing or broken.
    """
    if not (path / "config.json").exists():
        return snapshot.read_weights(path)
    parts = {part: read_safetensors(path / f"{part}.safetensors") for part in ("transformer", "text")}
    return {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}


def rollout_share(config: FlowRun, step: int) -> float:
    """The share of clips at `step` whose context the model makes itself."""
    grown = (step - config.rollout_from) / (config.rollout_full - config.rollout_from)
    return config.rollout * min(max(grown, 0.0), 1.0)


def batch_of(
    data: LatentDataset, text: WordEncoder, batch: int, latents: int, draw: torch.Generator, rollout: float
) -> Batch:
    """Random clips as tensors: latents, poses, intrinsics, word ids and mask, and which clips are to be rolled out."""
    clips = data.sample(batch, latents, draw)
    ids, mask = text.tokenize(list(clips.captions))
    tensors = {
        "latents": clips.latents,
        "poses": clips.c2w,
        "intrinsics": clips.intrinsics,
        "ids": ids,
        "mask": mask,
        "rollout": torch.rand(batch, generator=draw) < rollout,
    }
    return Batch(tensors=tensors, ids=clips.ids)


def flow_loss(
    model: FlowModel, tensors: Mapping[str, Tensor], draw: torch.Generator, config: FlowRun
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean squared error of the velocity noise - data over all chunks but the start, and its parts."""
    latents = tensors["latents"]
    count, channels, frames, *cells = latents.shape

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw).to(latents)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=draw).to(latents)

    keep = uniform(count, 1) >= config.caption_dropout
    words = torch.arange(tensors["mask"].shape[1], device=latents.device) == 0  # the start token always stays
    clips = model.clips({**tensors, "mask": tensors["mask"] & (keep | words)})
    jump = (uniform(count, 1) * config.gap * (uniform(count, 1) < 0.25)).long()
    clips = dataclasses.replace(clips, frame_index=clips.frame_index + jump * (clips.frame_index > 0))

    level = config.context_noise * uniform(count, 1, frames, 1, 1) * (uniform(count, 1, 1, 1, 1) < 0.5)
    level = torch.where(torch.arange(frames, device=latents.device).view(-1, 1, 1) > 0, level, 0.0)
    context = latents + level * (normal(*latents.shape) - latents)
    rolled = tensors["rollout"].nonzero()[:, 0]
    if len(rolled):
        noise = normal(len(rolled), channels, frames - 1, *cells)
        own = rollout(model, select(clips, rolled), noise)
        context = context.index_copy(0, rolled, own.to(context.dtype))

    time = shifted_logit_normal((count, frames - 1), config.shift, draw).to(latents)
    time = torch.where(uniform(count, frames - 1) < config.pure_noise, 1000.0, time)
    data, noise = latents[:, :, 1:], normal(count, channels, frames - 1, *cells)
    velocity = velocities(model.transformer, model.config, clips, context, noised(data, noise, time), time)
    error = velocity_error(model, velocity, noise - data)  # (B, T-1)
    logs = {
        "loss_rollout": error[rolled].mean() if len(rolled) else error.mean(),
        "rolled": tensors["rollout"].float().mean(),
    }
    return error.mean(), {name: value.detach() for name, value in logs.items()}


def velocity_error(model: FlowModel, velocity: Tensor, target: Tensor) -> Tensor:
    """Squared error (B, T), every channel weighted by how far it moves pixels: fine texture must not drown the room."""
    return (model.channel_weight * (velocity.float() - target).square()).mean((1, 3, 4))


@torch.no_grad()
def rollout(model: FlowModel, clips: Clips, noise: Tensor) -> Tensor:
    """The clips as the model plays them from their start latents, (B, C, T, Y, X); noise (B, C, T-1, Y, X)."""
    start, stride = clips.latents[:, :, :1], model.config.tokenizer.temporal_stride
    seeds = [0] * len(start)
    worlds = new_worlds(
        model.transformer, model.config, start, clips.intrinsics, clips.text, clips.text_mask, seeds, "training"
    )
    made = [start]
    for step in range(noise.shape[2]):
        path = clips.poses[:, 1 + step * stride : 1 + (step + 1) * stride]
        worlds, latents = advance(model.transformer, model.config, worlds, path, noise[:, :, step : step + 1])
        made.append(latents)
    return torch.cat(made, 2)


def measure(
    model: FlowModel, tokenizer: VideoTokenizer, tensors: Mapping[str, Tensor]
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Held-out numbers: velocity loss of single chunks from true context at three times, PSNR of whole rollouts
    against decoded truth second by second beside that of the repeated start; and a picture of both."""
    clips = model.clips(tensors)
    latents = clips.latents
    draw = generator(0, 0, "measure")
    noise = torch.randn(latents[:, :, 1:].shape, generator=draw).to(latents)
    numbers = {}
    for time in (1000.0, 750.0, 400.0):
        times = torch.full((len(latents), latents.shape[2] - 1), time, device=latents.device)
        noisy = noised(latents[:, :, 1:], noise, times)
        velocity = velocities(model.transformer, model.config, clips, latents, noisy, times)
        numbers[f"loss_{time:.0f}"] = float(velocity_error(model, velocity, noise - latents[:, :, 1:]).mean())
    truth = tokenizer.decode(latents, None)[0].clamp(-1, 1)
    played = tokenizer.decode(rollout(model, clips, noise), None)[0].clamp(-1, 1)
    for second, frames in enumerate(torch.arange(1, truth.shape[2]).split(round(model.config.fps)), 1):
        for name, video in (("model", played), ("repeat", truth[:, :, :1])):
            error = ((video[:, :, frames] if name == "model" else video) - truth[:, :, frames]).square() / 4
            psnr = -10 * error.mean((1, 3, 4)).clamp_min(1e-10).log10()
            numbers[f"psnr_{name}_{second}s"] = float(psnr.mean())
    stride = model.config.tokenizer.temporal_stride
    rows = [video[i, :, :: 2 * stride].movedim(1, 0) for i in range(min(4, len(truth))) for video in (truth, played)]
    return numbers, {"flow": sheet(rows)}
