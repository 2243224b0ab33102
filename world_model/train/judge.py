"""A network that tells played latents from true ones, and what it teaches both sides.

It sees whole clips and answers cell by cell, so it judges texture and how that moves, and leaves to the squared error
what stands where. Both sides learn from pairs of the same clip, one true and one played (a relativistic loss), and
its answers may not change fast where a little noise is added, at either (Huang et al. 2024, arXiv 2501.05441; Lin et
al. 2025, arXiv 2506.09350).

As a stage of its own it learns from pairs that a model played once (train/pairs.py), which is cheaper than playing.

Shapes: B clips, C channels, T latents, Y, X cells.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from world_model.checkpoint import load_folder
from world_model.errors import InputError
from world_model.train.loop import Batch, RunConfig, fit, generator
from world_model.train.outcome import Figures
from world_model.train.pairs import open_pairs
from world_model.weights import load_strictly, read_safetensors, write_safetensors

SLOPE = 0.2
FILE = "judge.safetensors"


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """width, depth: of the convolutions. noise, smoothness: of the penalty on changes, and its weight."""

    width: int = 96
    depth: int = 3
    noise: float = 0.1
    smoothness: float = 10.0

    def __post_init__(self) -> None:
        if min(self.width, self.depth) < 1 or self.noise <= 0 or self.smoothness < 0:
            raise InputError(
                "judge: expected width and depth >= 1, noise > 0 and smoothness >= 0, "
                f"got {self.width}, {self.depth}, {self.noise} and {self.smoothness}"
            )


@dataclass(frozen=True, kw_only=True)
class JudgeRun:
    """`python -m world_model.train judge`; the export is for `judge_init` of an adversarial run."""

    run: RunConfig
    world: str  # folder of the model that played, whose tokenizer says what a channel is worth
    data: str  # folder of pairs
    validation: str  # folder of held-out pairs
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    validation_clips: int = 16

    def __post_init__(self) -> None:
        if self.validation_clips < 1 or self.run.init:
            raise InputError(
                f"judge: expected validation_clips >= 1 and no run.init, got {self.validation_clips}, {self.run.init!r}"
            )


class Judge(nn.Module):
    """Latents (B, C, T, Y, X), the start first -> how true each cell looks, (B, 1, T, Y, X), higher for true ones.

    scale (C,): what a channel is worth to the eye; fine texture must not outweigh the room here either.
    """

    scale: Tensor

    def __init__(self, scale: Tensor, config: JudgeConfig) -> None:
        super().__init__()
        self.register_buffer("scale", scale.detach().view(1, -1, 1, 1, 1), persistent=False)
        self.first = nn.Conv3d(scale.numel(), config.width, 3, padding=1)
        self.layers = nn.ModuleList(nn.Conv3d(config.width, config.width, 3, padding=1) for _ in range(config.depth))
        self.last = nn.Conv3d(config.width, 1, 1)

    def forward(self, latents: Tensor, noise: Tensor | None = None) -> Tensor:
        """noise, of the latents' shape: added to what is seen, after scaling."""
        with torch.autocast(latents.device.type, enabled=False):  # differences of answers are small beside the answers
            seen = latents.float() * self.scale
            x = self.first(seen if noise is None else seen + noise)
            for layer in self.layers:
                x = x + layer(functional.leaky_relu(x, SLOPE))
            return self.last(functional.leaky_relu(x, SLOPE))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """On a batch of true and played clips, by one look at them.

    loss: what the judge learns from, to put true clips above played ones without jumping at a little noise; it leaves
    nothing in the player. fooled: the share of cells in which it puts the played one first. towards: where the played
    clips would have to go to be put first less, of their shape; the player learns from its opposite (`pull_beside`).
    """

    loss: Tensor
    fooled: Tensor
    towards: Tensor


def judge_clips(judge: nn.Module, true: Tensor, played: Tensor, draw: torch.Generator, config: JudgeConfig) -> Verdict:
    """Have true clips and played ones, both (B, ...) and of the same, judged against each other."""
    seen = played.detach().requires_grad_()
    clips = torch.cat([true, seen])
    answers = judge(clips)
    disturbed = judge(clips.detach(), config.noise * torch.randn(clips.shape, generator=draw).to(answers))
    of_true, of_played = answers.chunk(2)
    lead = of_true - of_played
    (towards,) = torch.autograd.grad(functional.softplus(lead).mean(), seen, retain_graph=True)
    change = (answers - disturbed).square().mean()
    loss = functional.softplus(-lead).mean() + config.smoothness * change
    return Verdict(loss=loss, fooled=(lead < 0).float().mean(), towards=towards)


def pull_beside(error: Tensor, at: Tensor, played: Tensor, towards: Tensor, pull: Tensor) -> Tensor:
    """A loss worth nothing that pulls what was played against `towards`: its gradient at `at`, of which `played` was
    made, is `pull` times as long as that of `error`, so that the scale of neither matters."""
    (away,) = torch.autograd.grad(played, at, towards, retain_graph=True)
    (from_error,) = torch.autograd.grad(error, at, retain_graph=True)
    rows = away.flatten(1).any(1)  # those that were judged
    pulled = (pull * from_error[rows].norm() / away.norm().clamp_min(1e-12) * away * at).sum()
    return pulled - pulled.detach()


def train(config: JudgeRun) -> None:
    """Train on pairs, and export the judge's weights."""
    torch.manual_seed(config.run.seed)
    world, (_, tokenizer, _) = load_folder(Path(config.world))
    data, held_out = open_pairs(Path(config.data), world.text), open_pairs(Path(config.validation), world.text)
    fixed = held_out.first(config.validation_clips)

    def sample_batch(step: int) -> Batch:
        tensors, numbers = data.sample(config.run.batch, generator(config.run.seed, step, "pairs"))
        kept = {name: tensors[name] for name in ("latents", "made")}
        return Batch(tensors=kept, ids=tuple(f"pair {i}" for i in numbers.tolist()))

    def loss(module: nn.Module, tensors: Mapping[str, Tensor], draw: torch.Generator):
        assert isinstance(module, Judge)
        verdict = judge_clips(module, tensors["latents"], tensors["made"], draw, config.judge)
        return verdict.loss, {"fooled": verdict.fooled}

    def validate(module: nn.Module) -> Figures:
        """The share of held-out cells of which the true one is put first, those of the start left out."""
        true, played = (module(fixed[name].to(config.run.device)) for name in ("latents", "made"))
        return {"cells_told_apart": float((true > played)[:, :, 1:].float().mean())}, {}

    def export(module: nn.Module, folder: Path) -> None:
        assert isinstance(module, Judge)
        save_judge(module, folder)

    judge = Judge(tokenizer.sensitivity().sqrt(), config.judge)
    fit(config.run, judge, loss, sample_batch, validate=validate, export=export)


def save_judge(judge: Judge, folder: Path) -> None:
    """Write the weights into the folder's judge.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: weight.detach().cpu() for name, weight in judge.state_dict().items()}
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    write_safetensors(folder / FILE, shapes, iter(weights.values()), torch.float32)


def load_judge(judge: Judge, folder: Path) -> None:
    """Read what `save_judge` wrote. Raises CheckpointError when it is missing, broken or of another judge."""
    load_strictly(judge, read_safetensors(folder / FILE), str(folder / FILE))
