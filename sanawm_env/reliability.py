"""How far a generated world can be trusted: a number a step, from 1 (the start frame) towards 0. No truth is needed.

Each step adds to a world's doubt, n, and its reliability is 1 / (1 + n). A doubt of 1 is a whole picture's worth:
latents have unit variance, so those of two unrelated pictures differ by 2 in the mean square. How well each measure
follows the true error of held-out rooms stands in docs/RESULTS.md; `python -m sanawm_env.reliability_study` measures.

The last reliability is all that is remembered from step to step. It lies in `Episode.signals`, and so in snapshots.

Shapes: N worlds, F frames of a step, C latent channels, Y, X latent cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from sanawm_env.engine import Engine
from sanawm_env.episode import Episode
from world_model.errors import InputError, StateError, require
from world_model.state import WorldState

SIGNAL = "reliability"
UNRELATED = 2.0  # mean squared difference of two independent values of unit variance
OTHER_NOISE = 1_000_003, 2**31  # factor and modulus: another seed for every seed


@runtime_checkable
class Measure(Protocol):
    """How much doubt a step adds. A function of its arguments alone, so that worlds may be kept and forked."""

    def doubt(
        self, engine: Engine[Any], worlds: Any, paths: np.ndarray, before: np.ndarray, after: np.ndarray
    ) -> np.ndarray:
        """(N,) >= 0. worlds: before the step along paths (N, F, 4, 4); last latents (N, C, Y, X) before and after."""
        ...


@dataclass(frozen=True)
class Change:
    """How much of the picture the step replaced: the latents' mean squared change. Costs nothing.

    What a model draws anew it partly invents, and later steps build on it.
    """

    def doubt(
        self, engine: Engine[Any], worlds: Any, paths: np.ndarray, before: np.ndarray, after: np.ndarray
    ) -> np.ndarray:
        return apart(before, after)


@dataclass(frozen=True)
class Seeds:
    """How far the same step lands under other noise: what the model has to guess. Costs a second forward."""

    def doubt(
        self, engine: Engine[Any], worlds: Any, paths: np.ndarray, before: np.ndarray, after: np.ndarray
    ) -> np.ndarray:
        if not isinstance(worlds, WorldState):
            raise InputError(f"reliability 'seeds': expected worlds of a world model, got {type(worlds).__name__}")
        factor, modulus = OTHER_NOISE
        other = worlds.reseeded((worlds.seed % modulus * factor + 1) % modulus)
        _, chunk = engine.advance(other, paths, "none")
        return apart(after, chunk.latents)


MEASURES: dict[str, type[Change] | type[Seeds]] = {"change": Change, "seeds": Seeds}


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """A measure, and the reliability below which an episode is truncated. Raises InputError.

    measure: "change", "seeds", or a Measure of your own.
    """

    measure: str | Measure = "change"
    least: float = 0.0

    def __post_init__(self) -> None:
        own = isinstance(self.measure, Measure) and not isinstance(self.measure, type)
        known = self.measure in MEASURES if isinstance(self.measure, str) else own
        require(known, f"reliability: expected one of {sorted(MEASURES)} or a Measure, got {self.measure!r}")
        require(0 <= self.least <= 1, f"min_reliability: expected a number from 0 to 1, got {self.least}")

    def after(
        self,
        engine: Engine[Any],
        worlds: Any,
        episodes: Sequence[Episode],
        paths: np.ndarray,
        latents: np.ndarray | None,
    ) -> np.ndarray:
        """(N,) float64 after a step of `worlds` along paths (N, F, 4, 4), whose last latents are (N, C, Y, X)."""
        before = [episode.latent for episode in episodes if episode.latent is not None]
        if latents is None or len(before) != len(episodes):
            raise InputError("reliability: expected an engine with latents, got one without")
        measure = MEASURES[self.measure]() if isinstance(self.measure, str) else self.measure
        added = measure.doubt(engine, worlds, paths, np.stack(before), latents)
        return 1 / (1 / np.array([reliability_of(episode) for episode in episodes]) + added)


def make_reliability(measure: str | Measure | None, least: float) -> Reliability | None:
    """What an environment is asked for. Raises InputError."""
    if measure is None and least == 0:
        return None
    if measure is None:
        raise InputError(f"reliability: expected a measure for min_reliability {least}, got None")
    return Reliability(measure=measure, least=least)


def reliability_of(episode: Episode) -> float:
    """Of the episode's last step. Raises StateError if it was flown without."""
    if SIGNAL not in episode.signals:
        raise StateError("reliability: expected an episode that measures it, got one that began without")
    return float(episode.signals[SIGNAL])


def apart(one: np.ndarray, other: np.ndarray | None) -> np.ndarray:
    """Doubt (N,) float64 of two sets of latents (N, C, Y, X): their mean squared difference, in whole pictures."""
    if other is None:
        raise InputError("reliability: expected latents to compare, got none")
    return np.square(one.astype(np.float64) - other).mean((1, 2, 3)) / UNRELATED
