"""Last stage of distillation: the student plays its own worlds, and is told where they differ from the teacher's.

The student rolls clips out as it will at play. Noised again, its clips are scored by a frozen bidirectional teacher
and by a critic that keeps learning what the student makes; the difference of the two is the gradient of a
distribution matching loss (training, 5.2 and 5.3; Yin et al. 2024, arXiv 2311.18828; Huang et al. 2025, 2506.08009).

Shapes: B clips, C channels, T latents, Y, X cells.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from world_model import whole_clip
from world_model.checkpoint import load_folder
from world_model.clips import Clips, noised
from world_model.dynamics import advance, new_worlds
from world_model.errors import InputError
from world_model.train import distributed
from world_model.train.data.latents import open_latents
from world_model.train.flow_model import FlowModel, batch_of
from world_model.train.loop import Batch, RunConfig, fit, generator
from world_model.train.outcome import measure_and_export
from world_model.train.times import model_times
from world_model.train.trajectories import load_model
from world_model.transformer import BlockCache, Conditions, SanaWM

SCORED = (20.0, 980.0)  # model times: nearer to the ends a score says nothing, or everything


@dataclass(frozen=True, kw_only=True)
class SelfForcingRun:
    """`python -m world_model.train self_forcing`. run.lr is the student's."""

    run: RunConfig
    student: str  # model folder to start from
    teacher: str  # model folder trained in mode "bidirectional": the frozen score, and where the critic starts
    data: str  # folder of encoded episodes: start latents, cameras, captions
    validation: str  # folder of encoded held-out episodes
    latents: int = 9  # of a rollout, the start included
    update_every: int = 5  # steps of the critic for one of the student
    critic_lr: float = 0.2  # as a share of the student's
    guidance: float = 1.0  # of the teacher; the public recipe has 4 (1 + 3)
    shift: float = 10.0  # towards noise, of the times at which clips are scored
    validation_clips: int = 16
    validation_latents: int = 17

    def __post_init__(self) -> None:
        if self.update_every < 1 or self.critic_lr <= 0 or self.latents < 3:
            raise InputError(
                "self_forcing: expected update_every >= 1, critic_lr > 0 and latents >= 3, "
                f"got {self.update_every}, {self.critic_lr} and {self.latents}"
            )


class Pair(nn.Module):
    """What learns: the student, and the critic of what it makes."""

    def __init__(self, student: FlowModel, critic: FlowModel) -> None:
        super().__init__()
        self.student, self.critic = student, critic


def train(config: SelfForcingRun) -> None:
    """Train, and export the student for `WorldModel.from_pretrained`."""
    torch.manual_seed(config.run.seed)
    _, (_, tokenizer, _) = load_folder(Path(config.student))
    pair = Pair(load_model(Path(config.student)), load_model(Path(config.teacher)))
    teacher = load_model(Path(config.teacher), config.run.device).requires_grad_(False)
    data = open_latents(Path(config.data))

    def sample_batch(step: int) -> Batch:
        draw = generator(config.run.seed, step, "clips")
        batch = batch_of(data, pair.student.text, config.run.batch, config.latents, draw, 0.0)
        update = torch.tensor(step % config.update_every == config.update_every - 1)
        return Batch(tensors={**batch.tensors, "update": update}, ids=batch.ids)

    def loss(module: nn.Module, tensors: Mapping[str, Tensor], draw: torch.Generator):
        assert isinstance(module, Pair)
        return self_forcing_loss(module, teacher, tensors, draw, config)

    validate, export = measure_and_export(config, tokenizer, pair, "student")
    scales = {"critic.": config.critic_lr}
    fit(config.run, pair, loss, sample_batch, validate=validate, export=export, lr_scales=scales)


def self_forcing_loss(
    pair: Pair, teacher: FlowModel, tensors: Mapping[str, Tensor], draw: torch.Generator, config: SelfForcingRun
) -> tuple[Tensor, dict[str, Tensor]]:
    """The critic's flow matching loss on a fresh rollout and, where `update` says so, the student's on another.

    The two share no weight, so one backward pass serves both.
    """
    with torch.no_grad():
        made = exit_rollout(pair.student, tensors, draw)
    critic = critic_loss(pair.critic, tensors, made, draw, config.shift)
    if not tensors["update"]:
        return critic, {"critic": critic.detach()}
    made = exit_rollout(pair.student, tensors, draw)
    student = matching_loss(pair.critic, teacher, tensors, made, draw, config)
    return critic + student, {"critic": critic.detach()}


def exit_rollout(student: FlowModel, tensors: Mapping[str, Tensor], draw: torch.Generator) -> Tensor:
    """Clips (B, C, T, Y, X) as the student plays them from their start latents, each chunk left at one random step.

    All chunks of all workers leave at the same step, and only that forward has gradients: what the student remembers
    has none. Between steps the predicted data is noised afresh (training, 5.2).
    """
    clips, config = student.clips(tensors), student.config
    drawn = int(torch.randint(len(config.steps) - 1, (), generator=draw))
    exit_step = distributed.of_first(lambda: drawn)  # so that no worker waits for another, nor gathers weights alone

    def sample(
        transformer: SanaWM,
        given: Conditions,
        cache: tuple[BlockCache, ...],
        noise: Tensor,
        steps: tuple[int, ...],
        start: Tensor | None = None,
    ) -> tuple[Tensor, tuple[BlockCache, ...]]:
        moving = torch.ones(noise.shape[0], noise.shape[2], device=noise.device)  # (B, T)
        if start is not None:
            moving[:, 0] = 0
        latents = noise  # a pending start latent is its first already
        for step, now in enumerate(steps[: exit_step + 1]):
            with torch.set_grad_enabled(torch.is_grad_enabled() and step == exit_step):
                velocity, _ = transformer(latents, moving * now, given, cache)
                data = latents - moving[:, None, :, None, None] * now / 1000 * velocity.float()
            if step < exit_step:
                fresh = torch.randn(noise.shape, generator=draw).to(noise)
                latents = noised(data, fresh, moving * steps[step + 1])
        with torch.no_grad():
            _, written = transformer(data.detach(), moving * 0, given, cache)
        return data, written

    start = clips.latents[:, :, :1]
    with torch.no_grad():
        worlds = new_worlds(
            student.transformer,
            config,
            start,
            clips.intrinsics,
            clips.text,
            clips.text_mask,
            [0] * len(start),
            "training",
        )
    made, frames = [start], config.frames_per_step
    for step in range((clips.latents.shape[2] - 1) // config.block):
        noise = torch.randn((*start.shape[:2], config.block, *start.shape[3:]), generator=draw).to(start)
        path = clips.poses[:, 1 + step * frames : 1 + (step + 1) * frames]
        worlds, latents = advance(student.transformer, config, worlds, path, noise, sample)
        made.append(latents)
    return torch.cat(made, 2)


def critic_loss(
    critic: FlowModel, tensors: Mapping[str, Tensor], made: Tensor, draw: torch.Generator, shift: float
) -> Tensor:
    """Flow matching of the student's clips, over all latents but the start."""
    time, noisy, noise = _noise_again(made, draw, shift)
    velocity = _velocity(critic, tensors, noisy, time, 1.0)
    return (velocity - (noise - made))[:, :, 1:].square().mean()


def matching_loss(
    critic: FlowModel,
    teacher: FlowModel,
    tensors: Mapping[str, Tensor],
    made: Tensor,
    draw: torch.Generator,
    config: SelfForcingRun,
) -> Tensor:
    """Half the squared distance to where the scores say the clips should be: its gradient is that of the divergence.

    Scaled clip by clip by how far the teacher would move it, so that all times weigh alike.
    """
    time, noisy, _ = _noise_again(made.detach(), draw, config.shift)
    sigma = time[:, None, :, None, None] / 1000
    with torch.no_grad():
        fake = noisy - sigma * _velocity(critic, tensors, noisy, time, 1.0)
        real = noisy - sigma * _velocity(teacher, tensors, noisy, time, config.guidance)
        scale = (made - real)[:, :, 1:].abs().mean((1, 2, 3, 4), keepdim=True)
        target = made - (fake - real) / scale.clamp_min(1e-6)
    return 0.5 * (made - target)[:, :, 1:].square().mean()


def _noise_again(made: Tensor, draw: torch.Generator, shift: float) -> tuple[Tensor, Tensor, Tensor]:
    """A time for each clip (B, T), 0 at its start; the clips noised to it; the noise."""
    time = model_times(1000 * torch.rand((len(made), 1), generator=draw), shift).clamp(*SCORED)
    time = time.repeat(1, made.shape[2]).to(made.device)
    time[:, 0] = 0
    noise = torch.randn(made.shape, generator=draw).to(made)
    return time, noised(made, noise, time), noise


def _velocity(model: FlowModel, tensors: Mapping[str, Tensor], noisy: Tensor, time: Tensor, guidance: float) -> Tensor:
    clips: Clips = model.clips(tensors)
    chunks = (noisy.shape[2],)
    return whole_clip.guided_velocities(model.transformer, model.config, clips, noisy, time, chunks, guidance).float()
