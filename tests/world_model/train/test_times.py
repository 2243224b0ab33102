"""Levels of chunks: uniform where they must be, never falling, logit-normal at the pivot."""

from collections import Counter
from itertools import combinations_with_replacement

import pytest
import torch

from world_model.errors import InputError
from world_model.train.times import LEVELS, TimeMixture, chunk_levels, chunk_times, logit_normal, model_times, monotone

ONLY = {name: 0.0 for name in vars(TimeMixture())}


def only(name: str) -> TimeMixture:
    return TimeMixture(**(ONLY | {name: 1.0}))


def test_monotone_sequences_are_all_there_and_equally_likely() -> None:
    draw = torch.Generator().manual_seed(0)
    every = list(combinations_with_replacement(range(2, 6), 3))  # 20 sequences
    found = Counter(tuple(monotone(3, 2, 5, draw).tolist()) for _ in range(20_000))
    assert sorted(found) == every
    chi_square = sum((count - 1000) ** 2 / 1000 for count in found.values())
    assert chi_square < 43.8  # 19 degrees of freedom, p = 0.001


@pytest.mark.parametrize(("length", "low", "high"), [(0, 0, 999), (1, 7, 7), (5, 3, 3)])
def test_monotone_at_the_edges(length: int, low: int, high: int) -> None:
    drawn = monotone(length, low, high, torch.Generator().manual_seed(0))
    assert drawn.tolist() == [low] * length if low == high else len(drawn) == length


@pytest.mark.parametrize("way", ["incremental", "last_anchor"])
def test_levels_never_fall_and_the_pivot_is_logit_normal(way: str) -> None:
    draw = torch.Generator().manual_seed(1)
    levels, clean = chunk_levels(4000, 5, only(way), draw)
    assert (levels.diff(dim=1) >= 0).all()
    assert ((levels >= 0) & (levels < LEVELS)).all()
    assert not clean.any()
    if way == "last_anchor":
        free = logit_normal((4000,), draw).double()
        quantiles = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
        assert (levels[:, -1].double().quantile(quantiles) - free.quantile(quantiles)).abs().max() < 30


def test_a_clean_prefix_leaves_at_least_one_chunk_noisy() -> None:
    levels, clean = chunk_levels(500, 4, only("clean_prefix"), torch.Generator().manual_seed(2))
    lengths = clean.sum(1)
    assert set(lengths.tolist()) == {0, 1, 2, 3}
    assert (clean.int().diff(dim=1) <= 0).all()  # a prefix
    assert (levels == levels[:, :1]).all()


def test_times_are_one_a_chunk_and_the_shares_hold() -> None:
    chunks = (4, 3, 3)
    times = chunk_times(6000, chunks, TimeMixture(), 9.95, torch.Generator().manual_seed(3))
    assert times.shape == (6000, 10)
    parts = times.split(chunks, 1)
    assert all((part == part[:, :1]).all() for part in parts)
    first, last = parts[0][:, 0], parts[-1][:, 0]
    assert 0.13 < ((first == last) | (first == 0)).float().mean() < 0.30  # same, clean prefix, and chance


def test_the_shift_is_that_of_the_specification() -> None:
    levels = torch.tensor([0, 500, 999])
    assert model_times(levels, 1.0).tolist() == pytest.approx([0, 500, 999])
    assert model_times(levels, 9.95)[1].item() == pytest.approx(1000 * 9.95 * 0.5 / (1 + 8.95 * 0.5))


def test_shares_that_do_not_sum_to_one_are_refused() -> None:
    with pytest.raises(InputError, match=r"sum to 1, got \(0.5"):
        TimeMixture(same=0.5)
