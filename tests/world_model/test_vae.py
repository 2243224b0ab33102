"""The video tokenizer: causal, decodable in any pieces, at any stride."""

import pytest
import torch

from world_model.config import TokenizerConfig
from world_model.errors import InputError
from world_model.vae import VideoTokenizer

CONFIGS = {
    "nano": TokenizerConfig(height=64, width=32, latent_channels=6, base_width=8),
    "released strides": TokenizerConfig(
        height=64, width=96, latent_channels=8, temporal_stride=8, spatial_stride=32, base_width=8
    ),
}


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS)
def tokenizer(request):
    torch.manual_seed(0)
    tokenizer = VideoTokenizer(request.param).eval().requires_grad_(False)
    for parameter in tokenizer.parameters():  # residual branches start at zero: wake them
        parameter.add_(0.1 * torch.randn_like(parameter) / max(parameter[0].numel(), 1) ** 0.5)
    cfg = request.param
    tokenizer.calibrate(torch.randn(cfg.latent_channels), torch.rand(cfg.latent_channels) + 0.5)
    return tokenizer


def video(cfg, latents, batch=2):
    generator = torch.Generator().manual_seed(1)
    frames = 1 + (latents - 1) * cfg.temporal_stride
    return torch.rand((batch, 3, frames, cfg.height, cfg.width), generator=generator) * 2 - 1


def test_shapes(tokenizer):
    cfg = tokenizer.cfg
    latents = tokenizer.encode(video(cfg, 3))
    assert latents.shape == (2, cfg.latent_channels, 3, *cfg.grid)
    decoded, previous = tokenizer.decode(latents, None)
    assert decoded.shape == video(cfg, 3).shape
    torch.testing.assert_close(previous, latents[:, :, -1:], rtol=0, atol=0)


def test_later_frames_never_change_earlier_latents(tokenizer):
    cfg = tokenizer.cfg
    whole = video(cfg, 4)
    for changed in range(1, whole.shape[2]):
        other = whole.clone()
        other[:, :, changed:] = -other[:, :, changed:]
        same = 1 + (changed - 1) // cfg.temporal_stride  # latents whose frames all lie before `changed`
        before, after = tokenizer.encode(whole), tokenizer.encode(other)
        torch.testing.assert_close(after[:, :, :same], before[:, :, :same], rtol=0, atol=0)
        assert (after[:, :, same:] - before[:, :, same:]).abs().amax((0, 1, 3, 4)).min() > 1e-3


def test_latents_look_back_exactly_one_stack(tokenizer):
    cfg = tokenizer.cfg
    whole = video(cfg, 4)
    other = whole.clone()
    other[:, :, 0] = 0
    moved = (tokenizer.encode(whole) - tokenizer.encode(other)).abs().amax((0, 1, 3, 4))
    assert (moved[:2] > 1e-3).all()
    torch.testing.assert_close(moved[2:], torch.zeros(2), rtol=0, atol=0)


@pytest.mark.parametrize("cuts", [(1, 1, 1, 1, 1), (2, 3), (1, 4), (4, 1)])
def test_decoding_in_pieces_is_decoding_at_once(tokenizer, cuts):
    cfg = tokenizer.cfg
    latents = torch.randn(2, cfg.latent_channels, 5, *cfg.grid, generator=torch.Generator().manual_seed(2))
    whole, _ = tokenizer.decode(latents, None)
    previous, pieces = None, []
    for piece in latents.split(cuts, 2):
        frames, previous = tokenizer.decode(piece, previous)
        pieces.append(frames)
    assert pieces[0].shape[2] == 1 + (cuts[0] - 1) * cfg.temporal_stride
    torch.testing.assert_close(torch.cat(pieces, 2), whole, rtol=1e-5, atol=1e-5)


def test_frames_are_decoded_from_their_latent_and_the_one_before(tokenizer):
    cfg = tokenizer.cfg
    latents = torch.randn(1, cfg.latent_channels, 4, *cfg.grid, generator=torch.Generator().manual_seed(3))
    other = latents.clone()
    other[:, :, 1] += 1
    change = (tokenizer.decode(latents, None)[0] - tokenizer.decode(other, None)[0]).abs().amax((0, 1, 3, 4))
    moved = torch.zeros(4, dtype=torch.bool)
    moved[1:3] = True
    frames = torch.cat([moved[:1], moved[1:].repeat_interleave(cfg.temporal_stride)])
    assert ((change > 1e-4) == frames).all()


def test_normalisation_cancels(tokenizer):
    latents = tokenizer.encode(video(tokenizer.cfg, 2))
    mean, _ = tokenizer.posterior(video(tokenizer.cfg, 2))
    decoded, _ = tokenizer.decode(latents, None)
    raw = tokenizer.decode_raw(mean, torch.cat([mean[:, :, :1], mean[:, :, :-1]], 2))
    torch.testing.assert_close(decoded, raw[:, :, tokenizer.cfg.temporal_stride - 1 :], rtol=1e-4, atol=1e-4)


def test_bad_input_is_named(tokenizer):
    cfg = tokenizer.cfg
    with pytest.raises(InputError, match=r"expected \(B, 3, 1 \+ n"):
        tokenizer.encode(video(cfg, 2)[:, :, :-1])
    with pytest.raises(InputError, match="latents: expected"):
        tokenizer.decode(torch.zeros(1, cfg.latent_channels + 1, 1, *cfg.grid), None)
    latents = torch.zeros(1, cfg.latent_channels, 2, *cfg.grid)
    with pytest.raises(InputError, match="previous latent: expected"):
        tokenizer.decode(latents, latents)


@pytest.mark.parametrize(
    ("changes", "message"), [({"spatial_stride": 24, "height": 48, "width": 48}, "24"), ({"kind": "ltx2"}, "ltx2")]
)
def test_configurations_that_it_cannot_build(changes, message):
    with pytest.raises(InputError, match=message):
        VideoTokenizer(TokenizerConfig(**changes))
