"""Sharpening of the tokenizer's decoder: it goes on reconstructing, and learns to look true to a judge of pixels too.

What latents leave open, L1 fills with the median of all that it could be, and the median is blurred. So a judge pulls
at what true latents are decoded to. Latents that a world model played are decoded to the frames of the same clip too,
but by L1 alone: where they are haze there is nothing to sharpen, and a decoder that was judged on them filled it with
rows of studs. The encoder stays, and with it the meaning of all latents and the world model that learned from them.

Shapes: B windows, C channels, T latents of a clip, W of a window, R frames a latent, H, W pixels, Y, X cells.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from world_model.checkpoint import load_folder, save_folder
from world_model.errors import InputError
from world_model.image_metrics import gradient_energy
from world_model.pictures import sheet
from world_model.train.data.clips import to_video
from world_model.train.footage import SIDES, open_footage
from world_model.train.judge import SLOPE, JudgeConfig, judge_clips, pull_beside
from world_model.train.loop import Batch, RunConfig, fit, generator
from world_model.train.measure import psnr_by_second
from world_model.train.outcome import Figures
from world_model.train.tokenizer import pixels_and_edges
from world_model.vae import VideoTokenizer

PICTURED = 4  # clips on a sample picture


@dataclass(frozen=True, kw_only=True)
class DecoderRun:
    """`python -m world_model.train decoder`; the export is the world model with the new decoder."""

    run: RunConfig
    world: str  # model folder: it played the pairs, and its decoder is sharpened
    data: str  # folder of pairs
    validation: str  # folder of held-out pairs
    episodes: tuple[str, ...]  # folders of the episodes that the clips of both come from
    cache: str  # folder of decoded frames
    latents: int = 2  # of a window; the judge sees their frames together, and so how things move
    edge: float = 0.5  # weight of the L1 of pixel differences
    flicker: float = 1.0  # weight of the L1 of differences between frames: what stands must not shimmer
    played: float = 0.3  # weight of the error of what was played, which no decoder can make small
    judge: JudgeConfig = field(default_factory=lambda: JudgeConfig(width=32, depth=2, smoothness=1.0))
    judge_lr: float = 2.0  # as a share of run.lr
    pull: float = 0.8  # of the judge: the length of its gradient at the pixels beside that of the error
    pull_full: int = 100  # steps until it pulls so much, for it knows nothing at first
    validation_clips: int = 16

    def __post_init__(self) -> None:
        if self.run.init:
            raise InputError(f"decoder: expected no run.init (world's decoder is sharpened), got {self.run.init!r}")
        if self.latents < 1 or min(self.edge, self.flicker, self.played) < 0 or self.validation_clips < 1:
            raise InputError(
                "decoder: expected latents >= 1, edge, flicker and played >= 0 and validation_clips >= 1, "
                f"got {self.latents}, {self.edge}, {self.flicker}, {self.played} and {self.validation_clips}"
            )
        if self.judge_lr <= 0 or self.pull < 0 or self.pull_full < 1:
            raise InputError(
                "decoder: expected judge_lr > 0, pull >= 0 and pull_full >= 1, "
                f"got {self.judge_lr}, {self.pull} and {self.pull_full}"
            )


class PixelJudge(nn.Module):
    """Frames (B, 3, F, H, W) -> how true each patch of 4x4 pixels over all F frames looks, higher for true ones."""

    def __init__(self, frames: int, config: JudgeConfig) -> None:
        super().__init__()
        width = config.width
        self.first = nn.Conv2d(3 * frames, width, 4, stride=2, padding=1)
        self.second = nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)
        self.layers = nn.ModuleList(nn.Conv2d(2 * width, 2 * width, 3, padding=1) for _ in range(config.depth))
        self.last = nn.Conv2d(2 * width, 1, 1)
        self.to(memory_format=torch.channels_last)

    def forward(self, frames: Tensor, noise: Tensor | None = None) -> Tensor:
        """noise, of the frames' shape: added to what is seen."""
        with torch.autocast(frames.device.type, enabled=False):  # differences of answers are small beside the answers
            seen = frames.float() if noise is None else frames.float() + noise
            x = self.first(seen.flatten(1, 2).contiguous(memory_format=torch.channels_last))
            x = self.second(functional.leaky_relu(x, SLOPE))
            for layer in self.layers:
                x = x + layer(functional.leaky_relu(x, SLOPE))
            return self.last(functional.leaky_relu(x, SLOPE))


class DecoderDuel(nn.Module):
    """What learns: the tokenizer's decoder, and the judge of what it shows."""

    def __init__(self, tokenizer: VideoTokenizer, judge: PixelJudge) -> None:
        super().__init__()
        self.tokenizer, self.judge = tokenizer, judge


def train(config: DecoderRun) -> None:
    """Train, and export the world model's folder."""
    torch.manual_seed(config.run.seed)
    world, (transformer, tokenizer, text) = load_folder(Path(config.world))
    tokenizer.requires_grad_(False)
    tokenizer.decoder.layers.requires_grad_(True)  # not its linear map, which says what a channel is worth
    duel = DecoderDuel(tokenizer, PixelJudge(config.latents * world.tokenizer.temporal_stride, config.judge))
    data, held_out = (
        open_footage(Path(folder), config.episodes, Path(config.cache), world)
        for folder in (config.data, config.validation)
    )
    data.require(tokenizer)
    held_out.require(tokenizer)
    fixed = held_out.first(config.validation_clips)

    def sample_batch(step: int) -> Batch:
        tensors, ids = data.sample(config.run.batch, config.latents, generator(config.run.seed, step, "windows"))
        pull = torch.tensor(config.pull * min(1.0, step / config.pull_full))
        return Batch(tensors={**tensors, "pull": pull}, ids=ids)

    def loss(module: nn.Module, tensors: Mapping[str, Tensor], draw: torch.Generator):
        assert isinstance(module, DecoderDuel)
        return decoder_loss(module, tensors, draw, config)

    def validate(module: nn.Module) -> Figures:
        assert isinstance(module, DecoderDuel)
        return measure(module.tokenizer, fixed, world.fps)

    def export(module: nn.Module, folder: Path) -> None:
        assert isinstance(module, DecoderDuel)
        save_folder(folder, world, (transformer, module.tokenizer, text), torch.bfloat16)
        for part in Path(config.world).glob("refiner.*"):  # it refines latents, whose meaning has not changed
            shutil.copy(part, folder)

    fit(
        config.run,
        duel,
        loss,
        sample_batch,
        validate=validate,
        export=export,
        lr_scales={"judge.": config.judge_lr},
    )


def decoder_loss(
    duel: DecoderDuel, tensors: Mapping[str, Tensor], draw: torch.Generator, config: DecoderRun
) -> tuple[Tensor, dict[str, Tensor]]:
    """The error of true and played latents against the frames of both, the judge's pull on what is shown of true ones,
    and the judge's own loss. The two sides share no weight, so one backward pass serves both."""
    true = to_video(tensors["frames"])
    shown = decode_windows(duel.tokenizer, torch.cat([tensors["latents"], tensors["made"]]))
    errors = {"": shown[: len(true)] - true, "_played": shown[len(true) :] - true}
    of_true, of_played = (shown_error(error, config) for error in errors.values())
    error = (of_true + config.played * of_played) / (1 + config.played)
    verdict = judge_clips(duel.judge, true, shown[: len(true)], draw, config.judge)
    pull = pull_beside(error, shown, shown[: len(true)], verdict.towards, tensors["pull"])
    logs = {"fooled": verdict.fooled, **{f"l1{side}": error.detach().abs().mean() for side, error in errors.items()}}
    return error + verdict.loss + pull, logs


def shown_error(error: Tensor, config: DecoderRun) -> Tensor:
    """L1 of an error (B, 3, F, H, W), of its differences between neighbouring pixels, and of those between frames."""
    pixel, edges = pixels_and_edges(error)
    return pixel + config.edge * edges + config.flicker * error.diff(dim=2).abs().mean()


def decode_windows(tokenizer: VideoTokenizer, latents: Tensor) -> Tensor:
    """Latents (B, C, 1 + W, Y, X), the one before the window first -> its frames (B, 3, W*R, H, W)."""
    mean, std = (x.view(1, -1, 1, 1, 1) for x in (tokenizer.latents_mean, tokenizer.latents_std))
    raw = latents * std + mean
    return tokenizer.decode_raw(raw[:, :, 1:], raw[:, :, :-1]).float()


@torch.no_grad()
def measure(tokenizer: VideoTokenizer, clips: Mapping[str, Tensor], fps: float) -> Figures:
    """Against true frames, second by second, of decoded truth and of decoded play: PSNR (dB), and gradient energy as a
    share of the frames'; and a picture, for some clips a row of each."""
    device = tokenizer.latents_mean.device
    videos = {"frames": to_video(clips["frames"])}
    for side in SIDES:
        decoded = [tokenizer.decode(clip.to(device), None)[0].clamp(-1, 1).cpu() for clip in clips[side].split(1)]
        videos[side] = torch.cat(decoded)
    truth, numbers = videos["frames"], {}
    true_energy = energy_by_second(truth, fps)
    for name, side in (("true", "latents"), ("played", "made")):
        energy = energy_by_second(videos[side], fps)
        for second, psnr in enumerate(psnr_by_second(videos[side], truth, fps)):
            numbers[f"psnr_{name}_{second + 1}s"] = psnr
            numbers[f"gradient_{name}_{second + 1}s"] = energy[second] / max(true_energy[second], 1e-9)
    stride = 2 * tokenizer.cfg.temporal_stride
    shown = [video[i, :, ::stride].movedim(1, 0) for i in range(min(PICTURED, len(truth))) for video in videos.values()]
    return numbers, {"decoder": sheet(shown)}


def energy_by_second(video: Tensor, fps: float) -> list[float]:
    """Gradient energy of the frames after the first, second by second; (B, 3, F, H, W) in [-1, 1]."""
    frames = video[:, :, 1:].permute(2, 0, 3, 4, 1)  # (F-1, B, H, W, 3)
    return [float(gradient_energy(second.flatten(0, 1)).mean()) for second in frames.split(round(fps))]
