"""The short conv, the feed-forward and the gates, against their definitions."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given as given_  # `given` is what a forward is conditioned on
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from world_model.attention import DeltaRuleAttention, Grid, KeyConv
from world_model.config import TransformerConfig
from world_model.layers import GatedConv

FRAMES, ROWS, COLUMNS = 10, 2, 3
CFG = TransformerConfig(
    latent_channels=4,
    caption_channels=8,
    plucker_channels=12,
    depth=4,
    softmax_every=2,
    heads=2,
    head_dim=16,
    main_scale_width=16,
    camera_scale_width=16,
)

CFG = TransformerConfig(
    latent_channels=4,
    caption_channels=8,
    plucker_channels=12,
    depth=4,
    softmax_every=2,
    heads=2,
    head_dim=16,
    main_scale_width=16,
    camera_scale_width=16,
)


def assert_close(got: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    assert got.shape == expected.shape
    assert (got - expected).norm() <= tolerance * expected.norm()


# ---- chunks -----------------------------------------------------------------------------------------------


# ---- parts against plain definitions ------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given_(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(2, 5), st.booleans())
def test_the_key_conv_is_its_definition(chunks: list[int], taps: int, with_past: bool) -> None:
    frames, draw = sum(chunks), torch.Generator().manual_seed(3)
    conv = KeyConv(6, taps).requires_grad_(False)
    conv.weight.copy_(torch.randn(conv.weight.shape, generator=draw))
    x = torch.randn(2, frames, 4, 6, generator=draw)
    past = torch.randn(2, taps - 1, 4, 6, generator=draw) if with_past else None
    chunk_of = [c for c, length in enumerate(chunks) for _ in range(length)]
    w = conv.weight[:, 0]
    expected = torch.zeros_like(x)
    for t in range(frames):
        for j in range(taps):
            back, ahead = t - (taps - 1 - j), t + (taps - 1 - j)
            if back >= 0 and (with_past or chunk_of[back] == chunk_of[t]):
                expected[:, t] += w[:, j] * x[:, back]
            elif back < 0 and past is not None:
                expected[:, t] += w[:, j] * past[:, back]  # past[-1] is the frame before the first
            if ahead < frames and ahead != t and chunk_of[ahead] == chunk_of[t]:
                expected[:, t] += w[:, j] * x[:, ahead]
    got = conv(x, Grid(frames, 2, 2, tuple(chunks)), past)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.fixture
def feed_forward(randomise) -> GatedConv:
    return randomise(GatedConv(CFG).eval().requires_grad_(False))


@pytest.mark.parametrize("chunks", [(5,), (2, 3), (1, 1, 2, 1)])
def test_the_feed_forward_is_its_definition(feed_forward: GatedConv, chunks: tuple[int, ...]) -> None:
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(2, 5, ROWS * COLUMNS, CFG.width, generator=draw)
    past = torch.randn(2, 1, ROWS * COLUMNS, CFG.width, generator=draw)
    inverted, depth, point = (
        m["conv"] for m in (feed_forward.inverted_conv, feed_forward.depth_conv, feed_forward.point_conv)
    )
    pictures = x.flatten(0, 1).unflatten(1, (ROWS, COLUMNS)).permute(0, 3, 1, 2)
    value, gate = depth(F.silu(inverted(pictures))).chunk(2, 1)
    inside = point(value * F.silu(gate)).unflatten(0, (2, 5)).flatten(3).transpose(2, 3)  # (B, T, S, C)
    before, centre, after = feed_forward.t_conv.weight[..., 0].unbind(-1)
    ends = [*itertools.accumulate(chunks)]
    expected = inside + inside @ centre.T
    for t in range(5):
        expected[:, t] += (inside[:, t - 1] if t else past[:, 0]) @ before.T
        if t + 1 not in ends:
            expected[:, t] += inside[:, t + 1] @ after.T
    got, tails = feed_forward(x, Grid(5, ROWS, COLUMNS, chunks), past)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(tails[:, :, 0], inside[:, [end - 1 for end in ends]], atol=1e-5, rtol=1e-5)


def test_a_feed_forward_too_large_for_one_call_is_split(feed_forward: GatedConv, monkeypatch) -> None:
    x = torch.randn(2, 5, ROWS * COLUMNS, CFG.width, generator=torch.Generator().manual_seed(3))
    grid, past = Grid(5, ROWS, COLUMNS, (5,)), torch.zeros(2, 1, ROWS * COLUMNS, CFG.width)
    whole, sizes = feed_forward(x, grid, past)[0], []
    inside = feed_forward.within_frame
    monkeypatch.setattr(feed_forward, "within_frame", lambda y: sizes.append(len(y)) or inside(y))
    monkeypatch.setattr(GatedConv, "MAX_ELEMENTS", 3 * 6 * CFG.width * ROWS * COLUMNS)
    torch.testing.assert_close(feed_forward(x, grid, past)[0], whole, atol=1e-6, rtol=1e-6)
    assert sizes == [3, 3, 3, 1]


def test_gates_are_their_definition(randomise) -> None:
    attention = randomise(DeltaRuleAttention(CFG).eval().requires_grad_(False))
    x = torch.randn(2, 3, 6, CFG.width, generator=torch.Generator().manual_seed(3))
    beta, decay = attention.gates(x)
    assert beta.shape == (2, 2, 3, 6)
    assert decay.shape == (2, 2, 3)
    token = x[1, 2, 4]
    expected = attention.beta_proj(token)[1].sigmoid()
    torch.testing.assert_close(beta[1, 1, 2, 4], expected)
    rate = F.softplus(attention.gate_proj(x[1, 2].mean(0)) + attention.dt_bias)[1]
    torch.testing.assert_close(decay[1, 1, 2], torch.exp(-attention.A_log[1].exp() * rate))
