"""The tokenizer's objective: where it starts, what its loss measures, what it may change."""

import numpy as np
import pytest
import torch

from world_model.config import TokenizerConfig
from world_model.errors import InputError
from world_model.train.data.clips import ClipDataset, to_video
from world_model.train.loop import generator
from world_model.train.tokenizer import calibrate, reconstruction_loss, reconstruction_quality, start_linear
from world_model.vae import VideoTokenizer

CFG = TokenizerConfig(height=32, width=32, latent_channels=6, base_width=8)


@pytest.fixture(scope="module")
def clips() -> ClipDataset:
    """Waves that slide: most of their variance lies along a few directions."""
    rng = np.random.default_rng(0)
    y, x, t = np.mgrid[:32, :32, :40].transpose(0, 3, 1, 2)
    waves = [np.sin(x * a + y * b + t * c) for a, b, c in rng.uniform(0.05, 0.3, (6, 3))]
    frames = [np.stack([128 + 60 * wave] * 3, -1).astype(np.uint8) for wave in waves]
    return ClipDataset(names=tuple(map(str, range(6))), frames=tuple(frames))


@pytest.fixture
def tokenizer(clips) -> VideoTokenizer:
    torch.manual_seed(0)
    tokenizer = VideoTokenizer(CFG).requires_grad_(False)
    start_linear(tokenizer, clips)
    return tokenizer


def cells_of(video: torch.Tensor) -> torch.Tensor:
    """Stacks of four frames -> (N, D) numbers of each cell."""
    return torch.nn.functional.pixel_unshuffle(video.movedim(1, 2).flatten(1, 2), 16).movedim(1, -1).flatten(0, 2)


def test_it_starts_as_the_best_linear_autoencoder(tokenizer, clips):
    video = to_video(clips.sample(250, 4, generator(0, 0, "components"))[0])  # what start_linear saw
    cells = cells_of(video).double()
    centred = cells - cells.mean(0)
    variance = torch.linalg.eigvalsh(centred @ centred.T).flip(0) / centred.numel()
    best = variance[CFG.latent_channels :].sum()
    stacks = video.movedim(1, 2).flatten(1, 2)[:, None]  # (B, 1, 3R, H, W)
    mean, _ = tokenizer.encoder(stacks)
    error = (cells_of(tokenizer.decode_raw(mean, mean)).double() - cells).square().mean()
    assert best < 0.2 * variance.sum()  # the fixture is worth compressing
    assert error == pytest.approx(best.item(), rel=0.05)
    torch.testing.assert_close(mean.std((0, 2, 3, 4)), torch.ones(CFG.latent_channels), rtol=0.1, atol=0.1)


def test_components_need_cells(clips):
    with pytest.raises(InputError, match="more than 6 cells to find 6 components, got 4"):
        start_linear(VideoTokenizer(CFG), clips, draws=1)


def test_sensitivity_is_how_far_a_channel_moves_pixels(tokenizer, clips):
    calibrate(tokenizer, clips, draws=8)
    sensitivity = tokenizer.sensitivity()
    assert sensitivity.mean() == pytest.approx(1.0)
    latents = torch.zeros(1, CFG.latent_channels, 1, *CFG.grid)
    still, _ = tokenizer.decode(latents, latents)
    moved = []
    for channel in range(CFG.latent_channels):
        changed = latents.clone()
        changed[:, channel] = 1
        moved.append((tokenizer.decode(changed, latents)[0] - still).norm())
    moved = torch.stack(moved)
    torch.testing.assert_close(sensitivity, moved / moved.mean(), rtol=1e-4, atol=1e-4)


def test_calibrated_latents_are_standardised(tokenizer, clips):
    calibrate(tokenizer, clips)
    video = to_video(clips.sample(64, 17, generator(0, 1, "other"))[0])
    latents = tokenizer.encode(video).movedim(1, 0).flatten(1)
    assert latents.mean(1).abs().max() < 0.2
    assert (latents.std(1) - 1).abs().max() < 0.2


def test_loss_parts(tokenizer, clips):
    """With a posterior of no width the loss is that of the decoded means, part by part."""
    torch.nn.init.constant_(tokenizer.encoder.head.bias[CFG.latent_channels :], -20.0)
    video = to_video(clips.sample(2, 9, generator(0, 2, "x"))[0])
    total, parts = reconstruction_loss(tokenizer, video, generator(0, 0, "x"), kl=0.1, edge=0.5)
    assert total == pytest.approx(parts["l1"] + 0.5 * parts["edge"] + 0.1 * parts["kl"])
    decoded, _ = tokenizer.decode(tokenizer.encode(video), None)
    error = (decoded - video).abs().mean((0, 1, 3, 4))  # (F,), of which frame 0 stands for a whole stack
    mean, _ = tokenizer.posterior(video)
    assert parts["kl"] == pytest.approx(0.5 * (mean.square().mean() + 20 - 1).item(), rel=1e-3)
    assert parts["l1"] == pytest.approx(((4 * error[0] + error[1:].sum()) / 12).item(), rel=0.2)


def test_quality_of_a_perfect_and_of_a_blind_tokenizer(tokenizer, clips):
    video, _ = clips.sample(4, 9, generator(0, 3, "x"))
    good, pictures = reconstruction_quality(tokenizer, video)
    assert pictures["tokenizer"].shape == (8 * 32, 3 * 32, 3)  # truth above, decoded below, every fourth frame
    for parameter in tokenizer.decoder.parameters():
        parameter.zero_()
    blind, _ = reconstruction_quality(tokenizer, video)
    assert good["psnr"] > blind["psnr"] + 6
    assert blind["gradient_energy"] == 0
    grey = ((to_video(video) / 2).square().mean((1, 3, 4))).log10().mean() * -10
    assert blind["psnr"] == pytest.approx(grey.item(), rel=1e-4)
