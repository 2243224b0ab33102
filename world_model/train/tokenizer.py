"""Objective of the video tokenizer: reconstruct through a sampled posterior; measure PSNR on held-out clips.

Loss: L1, plus L1 of differences between neighbouring pixels (keeps edges), plus a small KL to a unit normal.

Legend: B batch, C latent channels, F frames, T latents, R temporal stride, H W pixels, Y X latent cells.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from world_model.checkpoint import load_config
from world_model.config import TokenizerConfig
from world_model.errors import CheckpointError, InputError
from world_model.pictures import sheet
from world_model.train import snapshot
from world_model.train.data.clips import ClipDataset, open_clips, to_video
from world_model.train.loop import Batch, RunConfig, fit, generator
from world_model.vae import VideoTokenizer

STEM = "tokenizer"
PICTURED = 4  # clips on a sample picture
OVERSAMPLE = 16  # directions more than needed, for an accurate randomised decomposition


@dataclass(frozen=True, kw_only=True)
class TokenizerRun:
    """`python -m world_model.train tokenizer`."""

    run: RunConfig
    data: tuple[str, ...]  # folders of training episodes
    validation: tuple[str, ...]  # folders of held-out episodes
    cache: str  # folder of decoded frames
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    latents: int = 3  # a clip, the first of one frame
    kl: float = 3e-4
    edge: float = 0.5  # weight of the L1 of pixel differences
    validation_clips: int = 24
    decoder_only: bool = False  # leave the encoder, and with it all latents already made, as they are

    def __post_init__(self) -> None:
        if self.latents < 2 or self.validation_clips < PICTURED:
            raise InputError(
                f"expected latents >= 2 and validation_clips >= {PICTURED}, got {self.latents}, {self.validation_clips}"
            )


def train(config: TokenizerRun) -> None:
    """Train, and export a folder for `load_tokenizer`."""
    torch.manual_seed(config.run.seed)
    tokenizer = VideoTokenizer(config.tokenizer)
    if config.run.init:
        load_weights(tokenizer, Path(config.run.init))
    size = (config.tokenizer.height, config.tokenizer.width)
    clips = open_clips(config.data, config.cache, size)
    if not config.run.init:
        start_linear(tokenizer, clips)
    tokenizer.encoder.requires_grad_(not config.decoder_only)
    for side in (tokenizer.encoder, tokenizer.decoder):
        side.linear.requires_grad_(False)  # steps of the size that convolutions need would wreck it at once
    held_out = open_clips(config.validation, config.cache, size)
    stride = config.tokenizer.temporal_stride

    def sample_batch(step: int) -> Batch:
        length = 1 + (config.latents - 1) * stride
        video, ids = clips.sample(config.run.batch, length, generator(config.run.seed, step, "clips"))
        return Batch(tensors={"clips": video}, ids=ids)

    def loss(module: nn.Module, tensors: Mapping[str, Tensor], noise: torch.Generator):
        assert isinstance(module, VideoTokenizer)
        return reconstruction_loss(module, to_video(tensors["clips"]), noise, kl=config.kl, edge=config.edge)

    def validate(module: nn.Module) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        assert isinstance(module, VideoTokenizer)
        video, _ = held_out.sample(config.validation_clips, 1 + 4 * stride, generator(0, 0, "validation"))
        return reconstruction_quality(module, video)

    def export(module: nn.Module, folder: Path) -> None:
        assert isinstance(module, VideoTokenizer)
        if not config.decoder_only:
            calibrate(module, clips)
        save_tokenizer(module, folder)

    fit(config.run, tokenizer, loss, sample_batch, validate=validate, export=export)


@torch.no_grad()
def start_linear(tokenizer: VideoTokenizer, clips: ClipDataset, draws: int = 250) -> None:
    """Begin where the best linear autoencoder of random training clips is."""
    stride, cell = tokenizer.cfg.temporal_stride, tokenizer.cfg.spatial_stride
    video = to_video(clips.sample(draws, stride, generator(0, 0, "components"))[0])  # (draws, 3, R, H, W)
    stacks = video.movedim(1, 2).flatten(1, 2)  # (draws, 3R, H, W)
    cells = nn.functional.pixel_unshuffle(stacks, cell).movedim(1, -1).flatten(0, 2)  # (N, D)
    mean, count = cells.mean(0), tokenizer.cfg.latent_channels
    if len(cells) <= count:
        raise InputError(f"components: expected more than {count} cells to find {count} components, got {len(cells)}")
    kept = min(count + OVERSAMPLE, *cells.shape)
    _, lengths, directions = torch.svd_lowrank(cells - mean, q=kept, niter=4)
    spread = lengths[:count] / len(cells) ** 0.5
    tokenizer.start_from_components(mean, directions[:, :count], spread.clamp_min(1e-4))


def reconstruction_loss(
    tokenizer: VideoTokenizer, video: Tensor, noise: torch.Generator, *, kl: float, edge: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Video (B, 3, F, H, W) in [-1, 1] -> scalar loss, and its parts."""
    mean, log_variance = tokenizer.posterior(video)
    mean, log_variance = mean.float(), log_variance.float()
    drawn = torch.randn(mean.shape, generator=noise).to(mean)
    latents = mean + drawn * torch.exp(0.5 * log_variance)
    before = torch.cat([latents[:, :, :1], latents[:, :, :-1]], 2)
    decoded = tokenizer.decode_raw(latents, before).float()  # (B, 3, T*R, H, W)
    start = video[:, :, :1].expand(-1, -1, tokenizer.cfg.temporal_stride - 1, -1, -1)
    pixel, edges = pixels_and_edges(decoded - torch.cat([start, video], 2))
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    logs = {"l1": pixel, "edge": edges, "kl": divergence}
    return pixel + edge * edges + kl * divergence, {name: part.detach() for name, part in logs.items()}


def pixels_and_edges(error: Tensor) -> tuple[Tensor, Tensor]:
    """L1 of an error (..., H, W), and of its differences between neighbouring pixels."""
    return error.abs().mean(), error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()


@torch.no_grad()
def reconstruction_quality(tokenizer: VideoTokenizer, clips: Tensor) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """uint8 clips (B, F, H, W, 3) -> mean PSNR of a frame (dB), of start frames alone, and gradient energy kept;
    and a picture: for some clips a row of true frames above a row of decoded ones."""
    device = tokenizer.latents_mean.device
    psnr, start_psnr, kept, rows = [], [], [], []
    for clip in clips.split(1):
        video = to_video(clip.to(device))  # (1, 3, F, H, W)
        decoded = tokenizer.decode(tokenizer.encode(video), None)[0].clamp(-1, 1)
        error = ((decoded - video) / 2).square().mean((0, 1, 3, 4)).clamp_min(1e-10)  # (F,)
        psnr.append(-10 * error.log10().mean())
        start_psnr.append(-10 * error[0].log10())
        kept.append(decoded.diff(dim=-1).square().mean() / video.diff(dim=-1).square().mean())
        if len(rows) < 2 * PICTURED:
            shown = slice(None, None, tokenizer.cfg.temporal_stride)
            rows += [side[0, :, shown].movedim(1, 0) for side in (video, decoded)]
    numbers = {"psnr": psnr, "psnr_start": start_psnr, "gradient_energy": kept}
    return {name: float(torch.stack(values).mean()) for name, values in numbers.items()}, {"tokenizer": sheet(rows)}


@torch.no_grad()
def calibrate(tokenizer: VideoTokenizer, clips: ClipDataset, draws: int = 64) -> None:
    """Measure the latents' mean and standard deviation per channel on random training clips."""
    device = tokenizer.latents_mean.device
    length = 1 + 4 * tokenizer.cfg.temporal_stride
    means = []
    for draw in range(draws):
        video = to_video(clips.sample(1, length, generator(0, draw, "calibration"))[0].to(device))
        means.append(tokenizer.posterior(video)[0].movedim(1, 0).flatten(1))  # (C, T*Y*X)
    raw = torch.cat(means, 1)
    tokenizer.calibrate(raw.mean(1), raw.std(1))


def save_tokenizer(tokenizer: VideoTokenizer, folder: Path) -> None:
    """FOLDER/tokenizer.json and tokenizer.safetensors (numbered parts when large), float32."""
    folder.mkdir(parents=True, exist_ok=True)
    snapshot.write_tensors(folder, STEM, tokenizer.state_dict())
    snapshot.write_file(folder / f"{STEM}.json", json.dumps(dataclasses.asdict(tokenizer.cfg), indent=2).encode())


def load_tokenizer(folder: Path) -> VideoTokenizer:
    """A tokenizer in eval mode: what `save_tokenizer` wrote, or that of a model folder.

    Raises CheckpointError when it is incomplete.
    """
    path = folder / f"{STEM}.json"
    if not path.exists() and not (folder / "config.json").exists():
        raise CheckpointError(
            f"{folder}: expected a tokenizer's configuration, {STEM}.json or config.json, found neither"
        )
    try:
        cfg = TokenizerConfig(**json.loads(path.read_text())) if path.exists() else load_config(folder).tokenizer
    except (OSError, json.JSONDecodeError, TypeError) as error:
        raise CheckpointError(f"{path}: expected a tokenizer's configuration: {error}") from error
    tokenizer = VideoTokenizer(cfg)
    _load_strict(tokenizer, snapshot.read_tensors(folder, STEM), folder)
    return tokenizer.eval()


def load_weights(tokenizer: VideoTokenizer, path: Path) -> None:
    """Start from the weights at `path`: an exported or model folder, a .safetensors file or a snapshot of a run."""
    exported = any((path / name).exists() for name in (f"{STEM}.json", "config.json"))
    _load_strict(tokenizer, snapshot.read_tensors(path, STEM) if exported else snapshot.read_weights(path), path)


def _load_strict(tokenizer: VideoTokenizer, tensors: Mapping[str, Tensor], source: Path) -> None:
    try:
        tokenizer.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{source}: expected the tensors of {tokenizer.cfg}: {error}") from error
