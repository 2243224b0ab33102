"""The statistics, against numbers worked out by hand or known from elsewhere."""

import math

import numpy as np
import pytest

from sanawm_env.evaluate.statistics import (
    agreement,
    bootstrap_mean,
    mean_maximum_rank_violation,
    pearson,
    ranks,
    spearman,
    wilson,
)
from world_model.errors import InputError


def test_wilson_is_the_textbook_interval() -> None:
    eight = wilson(8, 10)
    assert (eight.value, eight.low, eight.high) == pytest.approx((0.8, 0.49016, 0.94331), abs=1e-5)
    none = wilson(0, 24)
    assert none.low == pytest.approx(0, abs=1e-12)
    assert none.high == pytest.approx(3.841459 / (24 + 3.841459), abs=1e-6)  # z^2 / (n + z^2)
    assert wilson(24, 24).low == pytest.approx(1 - none.high)
    with pytest.raises(InputError, match="got 3 of 2"):
        wilson(3, 2)


def test_pearson_by_hand() -> None:
    # a = (-1, 0, 1), b = (-7, -1, 8) / 3: a.b = 5, |a|^2 = 2, |b|^2 = 114 / 9
    assert pearson([1, 2, 3], [2, 4, 7]) == pytest.approx(5 / math.sqrt(2 * 114 / 9))
    assert pearson([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert math.isnan(pearson([1, 2, 3], [5, 5, 5]))
    with pytest.raises(InputError, match="3 and 2"):
        pearson([1, 2, 3], [1, 2])


def test_ties_share_their_rank() -> None:
    assert ranks([10, 20, 20, 5]).tolist() == [2, 3.5, 3.5, 1]
    # ranks (1, 2, 3.5, 3.5) and (2, 1, 3, 4): product of the deviations 3.5, squares 4.5 and 5
    assert spearman([1, 2, 9, 9], [0.2, 0.1, 0.3, 0.9]) == pytest.approx(3.5 / math.sqrt(4.5 * 5))
    assert spearman([1, 10, 100], [3, 4, 1000]) == pytest.approx(1)


def test_rank_violation_by_hand() -> None:
    truth = [0.1, 0.5, 0.9]
    assert mean_maximum_rank_violation(truth, truth) == 0
    # the last two are swapped, 0.4 apart in truth: (0 + 0.4 + 0.4) / 3
    assert mean_maximum_rank_violation([0.2, 0.8, 0.6], truth) == pytest.approx(0.8 / 3)
    # all reversed: the worst pair of each is 0.8, 0.4 and 0.8
    assert mean_maximum_rank_violation([3, 2, 1], truth) == pytest.approx(2.0 / 3)
    # a tie in the substitute violates the pair from the side of the lower in truth only, as the formula has it
    assert mean_maximum_rank_violation([0.5, 0.5], [0.2, 0.8]) == pytest.approx(0.3)


def test_bootstrap_covers_the_mean_and_repeats() -> None:
    values = np.random.default_rng(1).normal(3, 1, 100)
    one = bootstrap_mean(values)
    assert one == bootstrap_mean(values)
    assert one.value == pytest.approx(values.mean())
    half = 1.96 * values.std() / 10
    assert (one.low, one.high) == pytest.approx((one.value - half, one.value + half), abs=0.05)
    assert bootstrap_mean([2.0]).low == 2.0


def test_agreement_is_that_of_the_means_and_keeps_pairs_together() -> None:
    truth = np.array([[0, 0, 0, 1], [1, 1, 0, 0], [1, 1, 1, 1]], float)
    same = agreement(truth, truth)
    assert (same.r, same.rho, same.mmrv) == pytest.approx((1, 1, 0))
    assert (same.r_low, same.r_high) == pytest.approx((1, 1))  # paired: every resample is equal on both sides
    flat = agreement(np.ones((3, 4)), truth)
    assert math.isnan(flat.r)
    assert math.isnan(flat.r_low)
    # every policy looks alike: the worst pair of each with a policy above it in truth: 0.75, 0.5, none
    assert flat.mmrv == pytest.approx((0.75 + 0.5) / 3)
    with pytest.raises(InputError, match="equal shapes"):
        agreement(truth, truth[:2])
