"""The steps that `bench` times: every objective as it is trained, on made-up clips, and a naive form of one of them.

Shapes: B clips, T latents, C channels, Y, X cells.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from world_model.clips import Clips, noised
from world_model.config import WorldConfig
from world_model.dynamics import advance, new_worlds
from world_model.refiner import refiner_config
from world_model.train.adversarial import AdversarialRun, Duel, duel_loss
from world_model.train.data.latents import LatentDataset
from world_model.train.flow_model import FlowModel, FlowRun, batch_of
from world_model.train.judge import Judge, judge_clips
from world_model.train.loop import RunConfig
from world_model.train.losses import flow_loss, velocity_error
from world_model.train.ode import ode_loss
from world_model.train.refiner import DAMAGED, OWN, TRUE, RefinerRun, refiner_loss
from world_model.train.self_forcing import Pair, SelfForcingRun, self_forcing_loss
from world_model.transformer import BlockCache, Conditions, SanaWM

Velocities = Callable[[SanaWM, WorldConfig, Clips, Tensor, Tensor, Tensor], Tensor]
EPISODES, SPARE = 64, 8  # made-up episodes, and latents by which each is longer than a clip


@dataclass(frozen=True)
class Work:
    """One objective: what learns, how a batch is drawn, the loss of it."""

    name: str
    module: nn.Module
    draw: Callable[[torch.Generator], Mapping[str, Tensor]]
    loss: Callable[[nn.Module, Mapping[str, Tensor], torch.Generator], Tensor]


def works(model: FlowModel, *, batch: int, latents: int) -> list[Work]:
    """Every objective that trains a world model, each on a copy of `model`."""
    data = made_up_latents(model.config, latents)
    run = RunConfig(out="", steps=1)

    def clips(rolled: float = 0.0) -> Callable[[torch.Generator], Mapping[str, Tensor]]:
        return lambda draw: batch_of(data, model.text, batch, latents, draw, rolled).tensors

    def flow(mode: str) -> Callable[[nn.Module, Mapping[str, Tensor], torch.Generator], Tensor]:
        config = FlowRun(run=run, world="", tokenizer="", data="", validation="", latents=latents, mode=mode)
        return lambda module, tensors, draw: flow_loss(_flow(module), tensors, draw, config)[0]

    own = copy.deepcopy
    teacher = own(model).requires_grad_(False)
    matching = SelfForcingRun(run=run, student="", teacher="", data="", validation="", latents=latents)
    match = lambda module, tensors, draw: self_forcing_loss(_pair(module), teacher, tensors, draw, matching)[0]  # noqa: E731
    refining = RefinerRun(run=run, world="", data="", validation="", latents=latents)
    second = own(model)
    second.config = refiner_config(model.config, refining.steps)
    kinds = torch.tensor([TRUE, DAMAGED, OWN, OWN]).repeat(-(-batch // 4))[:batch]
    steps = len(model.config.steps)

    def updating(update: bool) -> Callable[[torch.Generator], Mapping[str, Tensor]]:
        return lambda draw: {**clips()(draw), "update": torch.tensor(update)}

    def trajectories(draw: torch.Generator) -> Mapping[str, Tensor]:
        drawn = dict(clips()(draw))
        truth = drawn.pop("latents")
        return {**drawn, "snapshots": truth[:, None].repeat(1, steps, 1, 1, 1, 1)}

    def pairs(draw: torch.Generator) -> Mapping[str, Tensor]:
        drawn = clips()(draw)
        return {**drawn, "made": drawn["latents"].clone(), "context": kinds}

    return [
        Work("streaming", own(model), clips(), flow("streaming")),
        Work("streaming, own rollouts", own(model), clips(1.0), flow("streaming")),
        Work("chunk_causal", own(model), clips(), flow("chunk_causal")),
        Work("bidirectional", own(model), clips(), flow("bidirectional")),
        Work("ode", own(model), trajectories, lambda m, t, draw: ode_loss(_flow(m), t, draw, "streaming")[0]),
        Work("self_forcing, critic", Pair(own(model), own(model)), updating(False), match),
        Work("self_forcing, both", Pair(own(model), own(model)), updating(True), match),
        *sharpening_works(model, clips(1.0), latents),
        Work("refiner", second, pairs, lambda m, t, draw: refiner_loss(_flow(m), t, draw, refining)[0]),
    ]


def sharpening_works(
    model: FlowModel, clips: Callable[[torch.Generator], Mapping[str, Tensor]], latents: int
) -> list[Work]:
    """A judge on pairs, and beside the model that it judges, on the model's own rollouts."""
    channels, run = model.channel_weight.sqrt(), RunConfig(out="", steps=1, init="made up")
    paths = {"world": "", "tokenizer": "made up", "data": "", "validation": ""}
    config = AdversarialRun(run=run, **paths, latents=latents, own_steps=1.0)

    def pairs(draw: torch.Generator) -> Mapping[str, Tensor]:
        truth = clips(draw)["latents"]
        return {"latents": truth, "made": truth.clone()}

    def told_apart(module: nn.Module, tensors: Mapping[str, Tensor], draw: torch.Generator) -> Tensor:
        assert isinstance(module, Judge)
        return judge_clips(module, tensors["latents"], tensors["made"], draw, config.judge).loss

    def duelled(module: nn.Module, tensors: Mapping[str, Tensor], draw: torch.Generator) -> Tensor:
        assert isinstance(module, Duel)
        return duel_loss(module, tensors, draw, config)[0]

    duel = Duel(copy.deepcopy(model), Judge(channels, config.judge))
    return [
        Work("judge", Judge(channels, config.judge), pairs, told_apart),
        Work("adversarial", duel, lambda draw: {**clips(draw), "pull": torch.tensor(config.pull)}, duelled),
    ]


def streaming_work(name: str, velocities: Velocities, model: FlowModel, *, batch: int, latents: int) -> Work:
    """The bare loss of every chunk from the cache of its past, by one of the ways to compute it."""
    data = made_up_latents(model.config, latents)

    def loss(module: nn.Module, tensors: Mapping[str, Tensor], draw: torch.Generator) -> Tensor:
        learner = _flow(module)
        clips = learner.clips(tensors)
        truth = clips.latents[:, :, 1:]
        noise = torch.randn(truth.shape, generator=draw).to(truth)
        time = 1000 * torch.rand((len(truth), truth.shape[2]), generator=draw).to(truth)
        noisy = noised(truth, noise, time)
        velocity = velocities(learner.transformer, learner.config, clips, clips.latents, noisy, time)
        return velocity_error(learner, velocity, noise - truth).mean()

    def draw_clips(draw: torch.Generator) -> Mapping[str, Tensor]:
        return batch_of(data, model.text, batch, latents, draw, 0.0).tensors

    return Work(name, copy.deepcopy(model), draw_clips, loss)


def chunk_by_chunk(
    transformer: SanaWM, config: WorldConfig, clips: Clips, context: Tensor, noisy: Tensor, time: Tensor
) -> Tensor:
    """What `streaming.velocities` returns, as one would write it first: a world is led along, two calls a chunk.

    For clips without jumps in time.
    """
    velocities: list[Tensor] = []

    def sample(
        transformer: SanaWM,
        given: Conditions,
        cache: tuple[BlockCache, ...],
        noise: Tensor,
        steps: tuple[int, ...],
        start: Tensor | None = None,
    ) -> tuple[Tensor, tuple[BlockCache, ...]]:
        t = len(velocities)
        velocities.append(transformer(noise, time[:, t : t + 1], given, cache)[0])
        clean = context[:, :, t + 1 : t + 2]
        return clean, transformer(clean, time[:, :1] * 0, given, cache)[1]

    words = clips.intrinsics, clips.text, clips.text_mask
    worlds = new_worlds(transformer, config, context[:, :, :1], *words, [0] * len(context), "bench")
    frames = config.frames_per_step
    for t in range(noisy.shape[2]):
        path = clips.poses[:, 1 + t * frames : 1 + (t + 1) * frames]
        worlds, _ = advance(transformer, config, worlds, path, noisy[:, :, t : t + 1], sample)
    return torch.cat(velocities, 2)


def made_up_latents(config: WorldConfig, latents: int) -> LatentDataset:
    """Noise in the layout of encoded episodes, with cameras that move ahead."""
    stride, count = config.tokenizer.temporal_stride, latents + SPARE
    draw = torch.Generator().manual_seed(0)
    poses = torch.eye(4).repeat(1 + (count - 1) * stride, 1, 1)
    poses[:, 2, 3] = 0.02 * torch.arange(len(poses))
    shape = config.tokenizer.latent_channels, *config.tokenizer.grid
    width, height = config.tokenizer.width, config.tokenizer.height
    episodes = tuple(
        {
            "latents": torch.randn((count, *shape), generator=draw).bfloat16(),
            "starts": torch.randn(((count - 2) // 4, 2, *shape), generator=draw).bfloat16(),
            "c2w": poses,
            "intrinsics": torch.tensor([0.7 * width, 0.7 * width, width / 2, height / 2]),
        }
        for _ in range(EPISODES)
    )
    names = tuple(f"made up {i}" for i in range(EPISODES))
    caption = " ".join(config.text.vocabulary[: config.text.max_words // 2])
    return LatentDataset(stride=stride, start_every=4, episodes=episodes, captions=(caption,) * EPISODES, ids=names)


def _flow(module: nn.Module) -> FlowModel:
    assert isinstance(module, FlowModel)
    return module


def _pair(module: nn.Module) -> Pair:
    assert isinstance(module, Pair)
    return module
