"""Nano's video tokenizer: a causal autoencoder made of 2-D convolutions.

A latent frame is a stack of `temporal_stride` video frames; latent 0 is frame 0 alone, repeated to fill its
stack, so that one set of weights serves both. Each side of the autoencoder looks back exactly one latent:
the encoder at the features of the stack before, the decoder at the latent before (at latent 0: at itself).
Hence any latents can be decoded from themselves and the one before them, and chunked decoding is whole
decoding. Pixels are folded 4x4 into channels at both ends: no convolution runs at full resolution.

Legend: B batch, C latent channels, F frames, T latents, H W pixels, Y X latent cells, R temporal stride,
G = B*T stacks, D features.
"""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from world_model.config import TokenizerConfig
from world_model.errors import InputError

PATCH = 4  # pixels folded into channels along each side
LOG_VARIANCE_START = -5.0  # a wide posterior at the start of training drowns the signal and stalls
EPS = 1e-6


class ChannelNorm(nn.Module):
    """RMSNorm over channels at every position; group norm stalled training here."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.rsqrt(x.square().mean(1, keepdim=True) + EPS)
        return x * scale * self.weight.view(-1, 1, 1)


class Residual(nn.Module):
    """x + conv(silu(conv(norm(x)))); nothing but x at the start of training."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.inner = nn.Conv2d(channels, channels, 3, padding=1)
        self.outer = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.outer(F.silu(self.inner(self.norm(x))))


class Down(nn.Module):
    """Half the resolution: a linear map of every 2x2 cells, beside their grouped mean."""

    def __init__(self, channels: int, out: int):
        super().__init__()
        self.out = out
        self.map = nn.Conv2d(4 * channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pixel_unshuffle(x, 2)  # (G, 4D, Y/2, X/2)
        return self.map(x) + x.unflatten(1, (self.out, -1)).mean(2)


class Up(nn.Module):
    """Twice the resolution: a linear map to 2x2 cells, beside the repeated input."""

    def __init__(self, channels: int, out: int):
        super().__init__()
        self.repeats = 4 * out // channels
        self.map = nn.Conv2d(channels, 4 * out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.map(x) + x.repeat_interleave(self.repeats, 1), 2)


def _widths(cfg: TokenizerConfig) -> list[int]:
    """Channels at each resolution, from 1/PATCH of the pixels' down to the latents'."""
    levels = math.log2(cfg.spatial_stride / PATCH)
    if levels < 0 or levels != int(levels):
        raise InputError(f"spatial_stride: expected {PATCH} times a power of two, got {cfg.spatial_stride}")
    return [cfg.base_width * min(2**i, 4) for i in range(int(levels) + 1)]


class Encoder(nn.Module):
    """Stacks of frames -> mean and log-variance of their latents."""

    def __init__(self, cfg: TokenizerConfig):
        super().__init__()
        widths = _widths(cfg)
        layers: list[nn.Module] = [nn.Conv2d(3 * cfg.temporal_stride * PATCH**2, widths[0], 1)]
        for wide, wider in itertools.pairwise(widths):
            layers += [Residual(wide), Down(wide, wider)]
        self.stack = nn.Sequential(*layers)
        self.join = nn.Conv2d(2 * widths[-1], widths[-1], 1)
        self.mix = nn.Sequential(Residual(widths[-1]), Residual(widths[-1]))
        self.head = nn.Conv2d(widths[-1], 2 * cfg.latent_channels, 3, padding=1)
        self.cell = cfg.spatial_stride
        self.linear = nn.Conv2d(3 * cfg.temporal_stride * self.cell**2, cfg.latent_channels, 1)

    def forward(self, stacks: Tensor) -> tuple[Tensor, Tensor]:
        """stacks (B, T, 3R, H, W), the first one latent 0's -> mean, log-variance (B, C, T, Y, X)."""
        batch = stacks.shape[0]
        flat = stacks.flatten(0, 1)
        x = F.pixel_unshuffle(flat, PATCH)  # (G, 48R, H/4, W/4)
        x = self.stack(x.contiguous(memory_format=torch.channels_last))  # (G, D, Y, X)
        own = x.unflatten(0, (batch, -1))
        before = torch.cat([own[:, :1], own[:, :-1]], 1).flatten(0, 1)
        x = self.mix(self.join(torch.cat([x, before], 1)))
        moments = self.head(x).unflatten(0, (batch, -1)).movedim(1, 2)  # (B, 2C, T, Y, X)
        mean, log_variance = moments.chunk(2, 1)
        linear = self.linear(F.pixel_unshuffle(flat, self.cell)).unflatten(0, (batch, -1)).movedim(1, 2)
        return mean + linear, log_variance.clamp(-20.0, 10.0)


class Decoder(nn.Module):
    """A latent and the one before it -> a stack of frames."""

    def __init__(self, cfg: TokenizerConfig):
        super().__init__()
        widths = _widths(cfg)[::-1]
        layers: list[nn.Module] = [
            nn.Conv2d(2 * cfg.latent_channels, widths[0], 3, padding=1),
            Residual(widths[0]),
            Residual(widths[0]),
        ]
        for wide, narrow in itertools.pairwise(widths):
            layers += [Residual(wide), Up(wide, narrow)]
        layers += [Residual(widths[-1]), nn.Conv2d(widths[-1], 3 * cfg.temporal_stride * PATCH**2, 1)]
        self.layers = nn.Sequential(*layers)
        self.cell = cfg.spatial_stride
        self.linear = nn.Conv2d(cfg.latent_channels, 3 * cfg.temporal_stride * self.cell**2, 1)

    def forward(self, latents: Tensor, before: Tensor) -> Tensor:
        """latents, before (G, C, Y, X) -> stacks (G, 3R, H, W)."""
        x = torch.cat([latents, before], 1).contiguous(memory_format=torch.channels_last)
        return F.pixel_shuffle(self.layers(x), PATCH) + F.pixel_shuffle(self.linear(latents), self.cell)


class VideoTokenizer(nn.Module):
    """Video <-> latents, causal in time, decodable latent by latent.

    `latents_mean` and `latents_std` (C,) normalise what `encode` returns and `decode` takes; they are
    measured over the training data once training ends (`calibrate`) and saved with the weights.
    """

    latents_mean: Tensor
    latents_std: Tensor

    def __init__(self, cfg: TokenizerConfig):
        super().__init__()
        if cfg.kind != "nano":
            raise InputError(f"tokenizer kind: VideoTokenizer is 'nano', got {cfg.kind!r}")
        self.cfg = cfg
        self.encoder = Encoder(cfg)
        self.decoder = Decoder(cfg)
        self.register_buffer("latents_mean", torch.zeros(cfg.latent_channels))
        self.register_buffer("latents_std", torch.ones(cfg.latent_channels))
        self._initialise()
        self.to(memory_format=torch.channels_last)

    def posterior(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Video (B, 3, 1 + n*R, H, W) in [-1, 1] -> raw mean and log-variance (B, C, 1 + n, Y, X)."""
        return self.encoder(self._stacks(video))

    def encode(self, video: Tensor) -> Tensor:
        """Video (B, 3, 1 + n*R, H, W) in [-1, 1] -> latents (B, C, 1 + n, Y, X): posterior means, normalised.

        Raises InputError if the size is not the config's or the frames do not fill whole latents.
        """
        mean, _ = self.posterior(video)
        return (mean - _channels(self.latents_mean)) / _channels(self.latents_std)

    def decode(self, latents: Tensor, previous: Tensor | None) -> tuple[Tensor, Tensor]:
        """Latents (B, C, n, Y, X) and the latent before them -> video (B, 3, F, H, W), and the last latent.

        `previous` (B, C, 1, Y, X) is what the last call returned; None says that the first latent is latent
        0, whose stack is one frame (F = 1 + (n-1)*R; else F = n*R). Video is about [-1, 1], not clamped.
        Raises InputError on shapes that are not the config's.
        """
        channels, rows, columns = self.cfg.latent_channels, *self.cfg.grid
        if latents.ndim != 5 or latents.shape[1] != channels or latents.shape[3:] != (rows, columns):
            raise InputError(f"latents: expected (B, {channels}, n, {rows}, {columns}), got {tuple(latents.shape)}")
        expected = (len(latents), channels, 1, rows, columns)
        if previous is not None and previous.shape != expected:
            raise InputError(f"previous latent: expected {expected}, got {tuple(previous.shape)}")
        start = latents[:, :, :1] if previous is None else previous
        raw = torch.cat([start, latents], 2) * _channels(self.latents_std) + _channels(self.latents_mean)
        video = self.decode_raw(raw[:, :, 1:], raw[:, :, :-1])
        if previous is None:  # latent 0's stack is frame 0 repeated: its last frame stands for it
            video = video[:, :, self.cfg.temporal_stride - 1 :]
        return video, latents[:, :, -1:]

    def decode_raw(self, latents: Tensor, before: Tensor) -> Tensor:
        """Unnormalised latents and their predecessors, each (B, C, T, Y, X) -> video (B, 3, T*R, H, W)."""
        batch = len(latents)
        flat = (x.movedim(2, 1).flatten(0, 1) for x in (latents, before))  # (G, C, Y, X)
        stacks = self.decoder(*flat)  # (G, 3R, H, W)
        stride = self.cfg.temporal_stride
        frames = stacks.unflatten(1, (stride, 3)).unflatten(0, (batch, -1))  # (B, T, R, 3, H, W)
        return frames.flatten(1, 2).movedim(2, 1)

    def sensitivity(self) -> Tensor:
        """How far a unit of each normalised channel moves pixels, (C,), relative to the mean channel."""
        moved = self.decoder.linear.weight.flatten(1).norm(dim=0) * self.latents_std
        return moved / moved.mean()

    @torch.no_grad()
    def calibrate(self, mean: Tensor, std: Tensor) -> None:
        """Set the per-channel statistics (C,) of raw posterior means over the training data."""
        self.latents_mean.copy_(mean)
        self.latents_std.copy_(std.clamp_min(EPS))

    @torch.no_grad()
    def start_from_components(self, mean: Tensor, components: Tensor, spread: Tensor) -> None:
        """Make the linear paths the principal components of cells, and so the best linear autoencoder.

        mean (D,), components (D, C) orthonormal columns, spread (C,) standard deviations along them, where a cell is
        D = 3 * R * spatial_stride**2 numbers in the order of pixel_unshuffle over stacks. At C = 24 this is where
        plain training arrives after a quarter of an hour on a laptop CPU; the convolutions learn what is left.
        """
        whiten = (components / spread).T
        self.encoder.linear.weight.copy_(whiten[:, :, None, None])
        self.encoder.linear.bias.copy_(-whiten @ mean)
        self.decoder.linear.weight.copy_((components * spread)[:, :, None, None])
        self.decoder.linear.bias.copy_(mean)

    @torch.no_grad()
    def _initialise(self) -> None:
        """Every convolution keeps its input's variance: with torch's defaults the latents start below the
        posterior's noise, and hundreds of steps pass before the decoder listens to them."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=layer.weight[0].numel() ** -0.5)
                nn.init.zeros_(layer.bias)
        for layer in self.modules():
            if isinstance(layer, Residual):
                nn.init.zeros_(layer.outer.weight)
        nn.init.zeros_(self.decoder.layers[-1].weight)
        nn.init.zeros_(self.encoder.head.weight)
        nn.init.constant_(self.encoder.head.bias[self.cfg.latent_channels :], LOG_VARIANCE_START)

    def _stacks(self, video: Tensor) -> Tensor:
        """(B, 3, F, H, W) -> (B, T, 3R, H, W): frame 0 repeated, then R frames each."""
        cfg, stride = self.cfg, self.cfg.temporal_stride
        whole = video.ndim == 5 and video.shape[2] % stride == 1 % stride
        if not whole or (video.shape[1], *video.shape[3:]) != (3, cfg.height, cfg.width):
            raise InputError(
                f"video: expected (B, 3, 1 + n*{stride}, {cfg.height}, {cfg.width}), got {tuple(video.shape)}"
            )
        frames = video.movedim(1, 2)  # (B, F, 3, H, W)
        frames = torch.cat([frames[:, :1].expand(-1, stride - 1, -1, -1, -1), frames], 1)
        return frames.unflatten(1, (-1, stride)).flatten(2, 3)


def _channels(statistic: Tensor) -> Tensor:
    return statistic.view(1, -1, 1, 1, 1)
