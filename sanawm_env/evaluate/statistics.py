"""The statistics of policy evaluation: intervals of rates and means, and how well one set of scores tells another.

Mean maximum rank violation is that of Li et al., Evaluating Real-World Robot Manipulation Policies in Simulation,
2024, section 3: of each policy the worst pair that the substitute orders wrongly, weighed by how far the pair lies
apart in truth, averaged over the policies. 0 is best.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from world_model.errors import InputError

Z = 1.959963984540054  # of a normal distribution, two-sided 95%
DRAWS = 2000  # bootstrap samples


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number and its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How scores of policies in a substitute agree with those in truth; r and rho are nan where one side is constant.

    r_low, r_high: 95% interval of r when the episodes are drawn anew.
    """

    r: float
    r_low: float
    r_high: float
    rho: float
    mmrv: float


def wilson(successes: int, count: int) -> Estimate:
    """A success rate with Wilson's score interval."""
    if not 0 <= successes <= count or count < 1:
        raise InputError(f"wilson: expected 0 <= successes <= count and count >= 1, got {successes} of {count}")
    rate, spread = successes / count, Z * Z / count
    middle = (rate + spread / 2) / (1 + spread)
    half = Z / (1 + spread) * math.sqrt(rate * (1 - rate) / count + spread / (4 * count))
    return Estimate(value=rate, low=max(0.0, middle - half), high=min(1.0, middle + half))


def bootstrap_mean(values: ArrayLike, seed: int = 0) -> Estimate:
    """A mean with its percentile interval over resampled values (n,)."""
    values = _numbers("bootstrap_mean", values)
    means = values[_resample(len(values), seed)].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(value=float(values.mean()), low=float(low), high=float(high))


def pearson(one: ArrayLike, other: ArrayLike) -> float:
    """Pearson's r of two sets of scores (n,); nan where one of them is constant."""
    one, other = _pair(one, other)
    a, b = one - one.mean(), other - other.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale > 1e-12 else math.nan


def ranks(values: ArrayLike) -> np.ndarray:
    """Ranks (n,) from 1, ties sharing their mean."""
    values = _numbers("ranks", values)
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def spearman(one: ArrayLike, other: ArrayLike) -> float:
    """Spearman's rho: Pearson's r of the ranks."""
    one, other = _pair(one, other)
    return pearson(ranks(one), ranks(other))


def mean_maximum_rank_violation(substitute: ArrayLike, truth: ArrayLike) -> float:
    """MMRV of scores (n,): the mean over i of the maximum over j of |truth_i - truth_j| where i and j change places.

    As in the paper, a pair is ordered differently if (substitute_i < substitute_j) != (truth_i < truth_j).
    """
    substitute, truth = _pair(substitute, truth)
    gap = np.abs(truth[:, None] - truth)
    wrong = (substitute[:, None] < substitute) != (truth[:, None] < truth)
    return float((gap * wrong).max(1).mean())


def agreement(substitute: np.ndarray, truth: np.ndarray, seed: int = 0) -> Agreement:
    """Scores of every episode (policies, episodes), column k of both from the same start: how their means agree.

    The interval of r resamples the columns: a bootstrap over starts, which keeps the pairs together.
    """
    if substitute.shape != truth.shape or substitute.ndim != 2:
        got = substitute.shape, truth.shape
        raise InputError(f"agreement: expected two equal shapes (policies, episodes), got {got}")
    one, other = substitute.mean(1), truth.mean(1)
    drawn = _resample(substitute.shape[1], seed)
    each = [pearson(substitute[:, columns].mean(1), truth[:, columns].mean(1)) for columns in drawn]
    known = [r for r in each if not math.isnan(r)]
    low, high = np.percentile(known, [2.5, 97.5]) if known else (math.nan, math.nan)
    return Agreement(
        r=pearson(one, other),
        r_low=float(low),
        r_high=float(high),
        rho=spearman(one, other),
        mmrv=mean_maximum_rank_violation(one, other),
    )


def _resample(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(count, size=(DRAWS, count))


def _numbers(name: str, values: ArrayLike) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise InputError(f"{name}: expected finite numbers (n,), n >= 1, got shape {values.shape}: {values}")
    return values


def _pair(one: ArrayLike, other: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    one, other = _numbers("scores", one), _numbers("scores", other)
    if len(one) != len(other) or len(one) < 2:
        raise InputError(f"scores: expected two sets of equal length >= 2, got {len(one)} and {len(other)}")
    return one, other
