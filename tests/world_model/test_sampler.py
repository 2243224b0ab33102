"""Sampling a chunk: the grid, the steps, the noise."""

import itertools

import pytest
import torch
from torch import Tensor

from world_model.config import TransformerConfig
from world_model.errors import InputError
from world_model.sampler import chunk_grid, latent_noise, sample_chunk
from world_model.transformer import SanaWM
from world_model.tree import map_tensors

SHAPE = 4, 2, 3


@pytest.mark.parametrize(
    ("frames", "chunks"),
    [
        (4, (4,)),
        (5, (5,)),
        (6, (3, 3)),
        (7, (4, 3)),
        (8, (5, 3)),
        (9, (3, 3, 3)),
        (10, (4, 3, 3)),
        (31, (4, *[3] * 9)),
        (43, (4, *[3] * 13)),
        (121, (4, *[3] * 39)),
    ],
)
def test_the_first_chunk_takes_the_remainder(frames: int, chunks: tuple[int, ...]) -> None:
    assert chunk_grid(frames, 3) == chunks
    assert sum(chunks) == frames
    assert len(chunks) == frames // 3


def test_training_and_streaming_grids_agree_where_a_world_lives() -> None:
    for block, count in itertools.product((1, 2, 3, 5), (1, 2, 7)):
        starts = [0, *range(1 + block, 1 + block * count, block)]  # of training: the first chunk has one more
        grid = chunk_grid(1 + block * count, block)
        if block > 1:  # with one-latent chunks the start latent is a chunk of its own
            assert [0, *itertools.accumulate(grid)][:-1] == starts


def test_a_clip_of_one_chunk_is_refused() -> None:
    with pytest.raises(InputError, match="more than one chunk of 3 latents, got 3"):
        chunk_grid(3, 3)


def test_noise_is_a_function_of_seed_and_index_alone() -> None:
    seeds, indices = torch.tensor([3, 8]), torch.arange(6).expand(2, -1)
    whole = latent_noise(seeds, indices, SHAPE)
    assert whole.shape == (2, 4, 6, 2, 3)
    assert whole.dtype == torch.float32
    pieces = [latent_noise(seeds, indices[:, part], SHAPE) for part in (slice(0, 1), slice(1, 4), slice(4, 6))]
    assert torch.equal(torch.cat(pieces, 2), whole)
    for i in range(2):
        assert torch.equal(latent_noise(seeds[i : i + 1], indices[:1], SHAPE), whole[i : i + 1])
    backwards = latent_noise(seeds, indices.flip(1), SHAPE)
    assert torch.equal(backwards.flip(2), whole)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    latent_noise(seeds, indices, SHAPE)
    assert torch.equal(torch.get_rng_state(), state)


def test_worlds_at_different_indices_draw_their_own() -> None:
    mixed = latent_noise(torch.tensor([3, 3]), torch.tensor([[0, 1], [7, 8]]), SHAPE)
    alone = latent_noise(torch.tensor([3]), torch.arange(9)[None], SHAPE)
    assert torch.equal(mixed[0], alone[0, :, :2])
    assert torch.equal(mixed[1], alone[0, :, 7:])


def test_noise_is_standard_normal_and_never_repeats() -> None:
    noise = latent_noise(torch.arange(20), torch.arange(50).expand(20, -1), (2, 4, 4))
    assert abs(noise.mean().item()) < 0.02
    assert noise.std().item() == pytest.approx(1, abs=0.02)
    frames = noise.transpose(1, 2).flatten(2).flatten(0, 1)  # (seed x index, values)
    similar = torch.corrcoef(frames) - torch.eye(len(frames))
    assert similar.abs().max() < 0.85  # of half a million pairs of 32 numbers
    assert len(frames.unique(dim=0)) == len(frames)


def test_huge_and_negative_seeds_are_seeds() -> None:
    seeds = torch.tensor([2**63 - 1, -(2**63), 0])
    noise = latent_noise(seeds, torch.zeros(3, 1, dtype=torch.long), SHAPE)
    assert len(noise.flatten(1).unique(dim=0)) == 3


def test_noise_will_be_the_same_tomorrow() -> None:
    # a saved world continues with the noise that it would have had: these numbers may never change
    first = latent_noise(torch.tensor([7]), torch.tensor([[5]]), (2, 1, 2)).flatten()
    assert first.tolist() == pytest.approx([0.21020249, -0.04163502, -2.10217023, -1.16323948], abs=1e-6)


class Recorded(torch.nn.Module):
    """A transformer that keeps the times and latents of its calls."""

    def __init__(self, transformer: torch.nn.Module) -> None:
        super().__init__()
        self.transformer = transformer
        self.calls: list[tuple[Tensor, Tensor]] = []

    def forward(self, latents, time, given, cache):
        self.calls.append((latents.clone(), time.clone()))
        return self.transformer(latents, time, given, cache)


@pytest.fixture
def chunk(randomise):
    """A small random transformer, its conditions for two worlds of three latents, and an empty cache."""
    cfg = TransformerConfig(latent_channels=4, caption_channels=8, depth=2, softmax_every=2, heads=2, head_dim=16)
    transformer = randomise(SanaWM(cfg)).eval().requires_grad_(False)
    draw = torch.Generator().manual_seed(0)
    camera = torch.cat([torch.eye(4).flatten(), torch.tensor([2.0, 2.0, 1.0, 1.0])]).expand(2, 3, -1)
    given = transformer.condition(
        torch.randn(2, 5, 8, generator=draw),
        torch.ones(2, 5, dtype=torch.bool),
        camera,
        torch.randn(2, 48, 3, 2, 3, generator=draw),
        torch.arange(3).expand(2, -1),
    )
    noise = torch.randn(2, 4, 3, 2, 3, generator=draw)
    return Recorded(transformer), given, transformer.empty_cache(2, given.grid, noise), noise


@pytest.mark.parametrize("steps", [(1000, 0), (1000, 750, 0), (1000, 960, 889, 727, 0)])
def test_a_chunk_is_euler_steps_and_one_clean_pass(chunk, steps: tuple[int, ...]) -> None:
    transformer, given, cache, noise = chunk
    latents, written = sample_chunk(transformer, given, cache, noise, steps)
    assert [time.unique().tolist() for _, time in transformer.calls] == [[float(step)] for step in steps]
    x = noise.double()
    for now, then in itertools.pairwise(steps):
        velocity, _ = transformer.transformer(x.float(), torch.full((2, 3), float(now)), given, cache)
        x = x - (now - then) / 1000 * velocity.double()
    torch.testing.assert_close(latents.double(), x, atol=1e-5, rtol=1e-5)
    clean = transformer.transformer(latents, torch.zeros(2, 3), given, cache)[1]
    assert torch.equal(written[0].feed_forward, clean[0].feed_forward)
    assert torch.equal(written[1].mixer.keys, clean[1].mixer.keys)


def test_a_start_latent_stays_as_it_is(chunk) -> None:
    transformer, given, cache, noise = chunk
    start = torch.randn(2, 4, 1, 2, 3, generator=torch.Generator().manual_seed(5))
    latents, _ = sample_chunk(transformer, given, cache, noise, (1000, 750, 0), start)
    assert torch.equal(latents[:, :, :1], start)
    for seen, time in transformer.calls:
        assert torch.equal(seen[:, :, :1], start)
        assert not time[:, 0].any()
    assert [time[0, 1].item() for _, time in transformer.calls] == [1000, 750, 0]
    other, _ = sample_chunk(transformer, given, cache, noise, (1000, 750, 0), start + 1)
    assert not torch.equal(other[:, :, 1:], latents[:, :, 1:])


def test_neither_noise_nor_cache_is_changed(chunk) -> None:
    transformer, given, cache, noise = chunk
    before, copy = noise.clone(), map_tensors(torch.clone, cache)
    sample_chunk(transformer, given, cache, noise, (1000, 750, 0), noise[:, :, :1].clone())
    assert torch.equal(noise, before)
    map_tensors(lambda x, y: torch.testing.assert_close(x, y, atol=0, rtol=0) or x, cache, copy)
