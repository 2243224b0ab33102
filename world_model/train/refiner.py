"""Training of the second stage, on what the world model really played beside what was true (training, 6).

Every chunk starts from its endpoint, the played latents under noise, and has a clean context: truth at first, then
truth as damaged as drift would leave it, then more and more what the refiner itself has made of the chunks before.

Shapes: B clips, C channels, T latents, Y, X cells.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from world_model.checkpoint import load_folder, save_folder
from world_model.clips import select
from world_model.errors import InputError
from world_model.image_metrics import gradient_energy
from world_model.pictures import sheet
from world_model.refiner import Refiner, endpoint, load_refiner, on_path, refiner_config, save_refiner
from world_model.train import streaming
from world_model.train.corruption import Corruption, corrupt
from world_model.train.flow_model import FlowModel
from world_model.train.loop import Batch, RunConfig, fit, generator
from world_model.train.losses import velocity_error
from world_model.train.measure import psnr_by_second
from world_model.train.pairs import open_pairs
from world_model.train.rollout import rollout
from world_model.train.times import logit_normal, model_times
from world_model.vae import VideoTokenizer
from world_model.weights import load_strictly

TRUE, DAMAGED, OWN = range(3)  # kinds of context
SHARES = ((1.0, 0.0, 0.0), (0.3, 0.7, 0.0), (0.2, 0.3, 0.5))  # of each kind, at the steps of RefinerRun.curriculum


@dataclass(frozen=True, kw_only=True)
class RefinerRun:
    """`python -m world_model.train refiner`. run.init: the folder of a model whose refiner is trained on."""

    run: RunConfig
    world: str  # model folder whose output is refined; its weights are where training starts
    data: str  # folder of pairs
    validation: str  # folder of held-out pairs
    steps: tuple[int, ...] = (500, 250, 0)  # model times; the first is 1000 times the endpoint's share of noise
    depth: int = 0  # blocks, 0: as many as the world model's
    latents: int = 17  # of a pair's clip, from its start
    corruption: Corruption = field(default_factory=Corruption)
    curriculum: tuple[int, ...] = (500, 2500, 5000)  # until here true context; here damaged too; here own too
    shift: float = 2.6  # of noise levels towards the endpoint: e^0.95, that of few tokens
    uniform: float = 0.1  # share of chunks with a uniform noise level
    at_endpoint: float = 0.25  # share of chunks at the endpoint, where every refinement begins
    validation_clips: int = 16

    def __post_init__(self) -> None:
        if len(self.curriculum) != len(SHARES) or list(self.curriculum) != sorted(set(self.curriculum)):
            raise InputError(f"curriculum: expected {len(SHARES)} rising steps, got {self.curriculum}")
        if self.latents < 3 or self.uniform + self.at_endpoint > 1:
            raise InputError(
                "refiner: expected latents >= 3 and uniform + at_endpoint <= 1, "
                f"got {self.latents} and {self.uniform} + {self.at_endpoint}"
            )


def train(config: RefinerRun) -> None:
    """Train, and export the world model's folder with its refiner."""
    torch.manual_seed(config.run.seed)
    world, (transformer, tokenizer, text) = load_folder(Path(config.world))
    tokenizer.to(config.run.device)
    model = FlowModel(refiner_config(world, config.steps, config.depth), tokenizer.sensitivity())
    if config.run.init:
        begun = load_refiner(Path(config.run.init), world).transformer.state_dict()
    else:
        begun = {k: v for k, v in transformer.state_dict().items() if k in model.transformer.state_dict()}
    load_strictly(model.transformer, begun, config.run.init or config.world)
    model.text = text.requires_grad_(False)
    data, held_out = open_pairs(Path(config.data), world.text), open_pairs(Path(config.validation), world.text)

    def sample_batch(step: int) -> Batch:
        draw = generator(config.run.seed, step, "pairs")
        tensors, numbers = data.sample(config.run.batch, draw)
        shares = torch.tensor(context_shares(config.curriculum, step))
        kinds = torch.multinomial(shares, config.run.batch, replacement=True, generator=draw)
        cut = {name: tensors[name][:, :, : config.latents] for name in ("made", "latents")}
        cut["poses"] = tensors["poses"][:, : 1 + (config.latents - 1) * world.tokenizer.temporal_stride]
        return Batch(tensors=tensors | cut | {"context": kinds}, ids=tuple(f"pair {i}" for i in numbers.tolist()))

    def loss(module: nn.Module, tensors: Mapping[str, Tensor], draw: torch.Generator):
        assert isinstance(module, FlowModel)
        return refiner_loss(module, tensors, draw, config)

    fixed = held_out.first(config.validation_clips)

    def validate(module: nn.Module) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        assert isinstance(module, FlowModel)
        return measure(module, tokenizer, {name: x.to(config.run.device) for name, x in fixed.items()})

    def export(module: nn.Module, folder: Path) -> None:
        assert isinstance(module, FlowModel)
        save_folder(folder, world, (transformer, tokenizer, text), torch.bfloat16)
        save_refiner(folder, Refiner(module.config, module.transformer), torch.bfloat16)

    fit(config.run, model, loss, sample_batch, validate=validate, export=export)


def context_shares(curriculum: tuple[int, ...], step: int) -> tuple[float, ...]:
    """The shares of true, damaged and own context at `step`: SHARES, with straight lines between."""
    return tuple(float(np.interp(step, curriculum, each)) for each in zip(*SHARES, strict=True))


def refiner_loss(
    model: FlowModel, tensors: Mapping[str, Tensor], draw: torch.Generator, config: RefinerRun
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean squared error of the velocity (x1 - truth) / start over all chunks but the start; and by kind of context."""
    clips, made = model.clips(tensors), tensors["made"]
    truth, later = clips.latents, slice(1, None)
    start = model.config.steps[0] / 1000
    end = endpoint(made, torch.randn(made.shape, generator=draw).to(made), start)[:, :, later]
    sigma = noise_levels((len(made), end.shape[2]), start, draw, config).to(made)
    kinds = tensors["context"]
    chosen = (kinds == DAMAGED).view(-1, 1, 1, 1, 1)
    context = torch.where(chosen, corrupt(truth, config.corruption, draw), truth)
    own = (kinds == OWN).nonzero()[:, 0]
    if len(own):
        begun = endpoint(made[own], torch.randn(made[own].shape, generator=draw).to(made), start)[:, :, later]
        context = context.index_copy(0, own, rollout(model, select(clips, own), begun).to(context.dtype))
    state = on_path(truth[:, :, later], end, sigma, start)
    velocity = streaming.velocities(model.transformer, model.config, clips, context, state, 1000 * sigma)
    error = velocity_error(model, velocity, (end - truth[:, :, later]) / start)  # (B, T-1)
    logs = {"at_endpoint": error[sigma == start], "own_context": error[own], "all": error}
    return error.mean(), {f"loss_{name}": (x if x.numel() else error).mean().detach() for name, x in logs.items()}


def noise_levels(shape: tuple[int, int], start: float, draw: torch.Generator, config: RefinerRun) -> Tensor:
    """Levels in (0, start], logit-normal and shifted towards it; shares of them uniform, and at the endpoint itself.

    The public recipe draws levels of the whole range and clamps them, which at a small start leaves few below it.
    """
    share = model_times(logit_normal(shape, draw), config.shift) / 1000
    kind = torch.rand(shape, generator=draw)
    share = torch.where(kind < config.uniform, torch.rand(shape, generator=draw), share)
    share = torch.where(kind >= 1 - config.at_endpoint, 1.0, share)
    return start * share.clamp_min(1e-3)


def measure(
    model: FlowModel, tokenizer: VideoTokenizer, tensors: Mapping[str, Tensor]
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """PSNR second by second and gradient energy as a share of the truth's, of pairs as made and refined; a picture.

    Everything decoded, the truth too.
    """
    clips, made = model.clips(tensors), tensors["made"]
    start = model.config.steps[0] / 1000
    noise = torch.randn(made.shape, generator=generator(0, 0, "measure")).to(made)
    refined = rollout(model, clips, endpoint(made, noise, start)[:, :, 1:])
    truth, *played = (tokenizer.decode(x, None)[0].clamp(-1, 1) for x in (clips.latents, made, refined))
    last = truth.shape[2] - round(model.config.fps)
    numbers = {}
    for name, video in zip(("made", "refined"), played, strict=True):
        psnr = psnr_by_second(video, truth, model.config.fps)
        numbers |= {f"psnr_{name}_{second}s": value for second, value in enumerate(psnr, 1)}
        sharp, true = (gradient_energy(x[:, :, last:].permute(0, 2, 3, 4, 1).flatten(0, 1)) for x in (video, truth))
        numbers[f"gradient_{name}_last"] = float(sharp.mean() / true.mean())
    stride = 2 * model.config.tokenizer.temporal_stride
    rows = [x[i, :, ::stride].movedim(1, 0) for i in range(min(3, len(truth))) for x in (truth, *played)]
    return numbers, {"refiner": sheet(rows)}
