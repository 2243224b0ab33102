"""Flow matching losses: of streaming worlds, and of whole clips in one pass.

Shapes: B clips, T latents, C channels, Y, X cells.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from world_model import whole_clip
from world_model.clips import Clips, noised, select
from world_model.train import distributed
from world_model.train.flow_model import FlowModel, FlowRun
from world_model.train.half_made import half_made
from world_model.train.rollout import rollout
from world_model.train.streaming import velocities
from world_model.train.times import chunk_times, logit_normal, model_times

LATE = 0.25  # share of clips
Loss = tuple[Tensor, dict[str, Tensor]]


def flow_loss(model: FlowModel, tensors: Mapping[str, Tensor], draw: torch.Generator, config: FlowRun) -> Loss:
    """The loss of `config.mode`, a scalar, and its parts."""
    clips = some_without_words(model, tensors, draw, config.caption_dropout)
    if config.mode == "streaming":
        return streaming_loss(model, clips, tensors["rollout"], draw, config)
    return whole_clip_loss(model, clips, draw, config)


def some_without_words(model: FlowModel, tensors: Mapping[str, Tensor], draw: torch.Generator, dropout: float) -> Clips:
    """The clips of a batch, a share of them without caption."""
    latents = tensors["latents"]
    keep = torch.rand((len(latents), 1), generator=draw).to(latents) >= dropout
    words = torch.arange(tensors["mask"].shape[1], device=latents.device) == 0  # the start token always stays
    return model.clips({**tensors, "mask": tensors["mask"] & (keep | words)})


@dataclass(frozen=True, kw_only=True)
class Streamed:
    """Chunks as the model sees and answers them in training; all but the start of B clips.

    noisy, velocity, target (B, C, T-1, Y, X): what it is shown, what it answers, what it should. time (B, T-1).
    """

    clips: Clips
    noisy: Tensor
    time: Tensor
    velocity: Tensor
    target: Tensor

    def data(self) -> Tensor:
        """The chunks that the answers lead to, (B, C, T-1, Y, X)."""
        return self.noisy - self.time[:, None, :, None, None] / 1000 * self.velocity.float()


def streaming_loss(model: FlowModel, clips: Clips, rolls: Tensor, draw: torch.Generator, config: FlowRun) -> Loss:
    """Mean squared error of the velocity over all chunks but the start, each from the cache of its past."""
    return squared_error(model, streamed(model, clips, rolls, draw, config), rolls)


def squared_error(model: FlowModel, made: Streamed, rolls: Tensor) -> Loss:
    """Of the velocities; logged as well for the clips (`rolls`) whose context was the model's own."""
    error = velocity_error(model, made.velocity, made.target)  # (B, T-1)
    logs = {"loss_rollout": error[rolls].mean() if rolls.any() else error.mean(), "rolled": rolls.float().mean()}
    return error.mean(), {name: value.detach() for name, value in logs.items()}


def streamed(model: FlowModel, clips: Clips, rolls: Tensor, draw: torch.Generator, config: FlowRun) -> Streamed:
    """Chunks of all clips at random times, each answered from the cache of its past.

    rolls (B,) bool: the clips whose context is the model's own rollout. The context of half of the others is noised
    a little; a quarter of all clips jump in time after the start latent.
    """
    latents = clips.latents
    count, channels, frames, *cells = latents.shape

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw).to(latents)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=draw).to(latents)

    clips = dataclasses.replace(clips, frame_index=late(clips.frame_index, config.gap, draw))
    level = config.context_noise * uniform(count, 1, frames, 1, 1) * (uniform(count, 1, 1, 1, 1) < 0.5)
    level = torch.where(torch.arange(frames, device=latents.device).view(-1, 1, 1) > 0, level, 0.0)
    context = latents + level * (normal(*latents.shape) - latents)
    rolled = rolls.nonzero()[:, 0]
    if len(rolled):
        noise = normal(len(rolled), channels, frames - 1, *cells)
        own = rollout(model, select(clips, rolled), noise)
        context = context.index_copy(0, rolled, own.to(context.dtype))

    time = model_times(logit_normal((count, frames - 1), draw), config.shift).to(latents)
    time = torch.where(uniform(count, frames - 1) < config.pure_noise, 1000.0, time)
    data, noise = latents[:, :, 1:], normal(count, channels, frames - 1, *cells)
    if config.own_steps:
        noise, time = half_made(model, clips, context, data, noise, time, config.own_steps, draw)
    noisy = noised(data, noise, time)
    velocity = velocities(model.transformer, model.config, clips, context, noisy, time)
    return Streamed(clips=clips, noisy=noisy, time=time, velocity=velocity, target=noise - data)


def late(frame_index: Tensor, gap: int, draw: torch.Generator) -> Tensor:
    """Latent indices (B, T) of clips, a quarter of which go on up to `gap` latents after their start latent.

    So the window of a long game is known: a sink from the beginning, and chunks at late positions.
    """
    count = len(frame_index)
    jump, jumps = (torch.rand((count, 1), generator=draw).to(frame_index.device) for _ in range(2))
    return frame_index + ((gap + 1) * jump * (jumps < LATE)).long() * (frame_index > 0)


def whole_clip_loss(model: FlowModel, clips: Clips, draw: torch.Generator, config: FlowRun) -> Loss:
    """The same error over whole clips in one pass: bidirectional at one time a clip, chunk-causal at one a chunk.

    In most clips the start latent is clean and without loss; in the others it is noised like the rest, which keeps
    the ability to begin from text alone (training, 1).
    """
    latents = clips.latents
    count, frames = latents.shape[0], latents.shape[2]
    chunks = (frames,)
    if config.mode == "chunk_causal":
        chunks = whole_clip.training_chunks(frames, model.config)
        time = chunk_times(count, chunks, config.mixture, config.shift, draw)
    else:
        time = model_times(logit_normal((count, 1), draw), config.shift).expand(count, frames)
    given = torch.rand((count, 1), generator=draw) < config.start_clean
    start = torch.arange(frames) == 0
    time = torch.where(given & start, 0.0, time).to(latents)  # (B, T)
    counted = (~(given & start)).to(latents)
    noise = torch.randn(latents.shape, generator=draw).to(latents)
    held, noisy = distributed.held(frames), noised(latents, noise, time)
    velocity = whole_clip.velocities(model.transformer, model.config, clips, noisy, time, chunks, held)
    error = velocity_error(model, velocity, held.cut(noise - latents, 2))
    return held.mean(error, held.cut(counted, 1)), {"start_given": given.float().mean()}


def velocity_error(model: FlowModel, velocity: Tensor, target: Tensor) -> Tensor:
    """Squared error (B, T), every channel weighted by how far it moves pixels: fine texture must not drown the room."""
    return (model.channel_weight * (velocity.float() - target).square()).mean((1, 3, 4))
