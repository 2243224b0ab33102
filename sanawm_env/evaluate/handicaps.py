"""What makes a policy worse: another picture than the camera's, actions that come late or tremble.

A policy with privileged pose can be late or tremble, too.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sanawm_env.evaluate.policies import Actor, Policy


@dataclass(frozen=True, kw_only=True)
class Through:
    """A policy that sees every picture through a filter, (H, W, 3) uint8 to the same."""

    policy: Policy
    filter: Callable[[np.ndarray], np.ndarray]
    reads = "pixels"

    def begin(self, seed: int) -> Actor:
        actor = self.policy.begin(seed)
        return lambda picture: actor(self.filter(picture))


@dataclass(frozen=True, kw_only=True)
class Blur:
    """Box blur, three times: nearly a gaussian. radius: pixels of a picture 128 wide, scaled with the width."""

    radius: int

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        radius = max(1, round(self.radius * picture.shape[1] / 128))
        values = picture.astype(np.float64)
        for axis in (0, 1) * 3:
            pad = [(0, 0)] * 3
            pad[axis] = (radius + 1, radius)
            total = np.cumsum(np.pad(values, pad, mode="edge"), axis)
            width = 2 * radius + 1
            values = (
                np.take(total, range(width, total.shape[axis]), axis)
                - np.take(total, range(total.shape[axis] - width), axis)
            ) / width
        return values.round().clip(0, 255).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class Shift:
    """Colours of another camera: brightness times `gain`, colour strength times `strength`, plus a tint (3,) of 255."""

    gain: float = 1.0
    strength: float = 1.0
    tint: tuple[float, float, float] = (0, 0, 0)

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        values = picture.astype(np.float64)
        grey = values.mean(-1, keepdims=True)
        shifted = self.gain * (grey + self.strength * (values - grey)) + np.array(self.tint)
        return shifted.round().clip(0, 255).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class Late:
    """A policy whose actions take effect `steps` steps late; until the first one does, the camera stands still."""

    policy: Policy
    steps: int

    @property
    def reads(self) -> str:
        return self.policy.reads

    def begin(self, seed: int) -> Actor:
        actor, waiting = self.policy.begin(seed), deque[np.ndarray]()

        def act(seen: Any) -> np.ndarray:
            waiting.append(np.asarray(actor(seen)))
            return waiting.popleft() if len(waiting) > self.steps else np.zeros_like(waiting[0])

        return act


@dataclass(frozen=True, kw_only=True)
class Trembling:
    """A policy with noise on its actions: a share `level` of it is replaced by uniform noise."""

    policy: Policy
    level: float

    @property
    def reads(self) -> str:
        return self.policy.reads

    def begin(self, seed: int) -> Actor:
        actor, rng = self.policy.begin(seed), np.random.default_rng(seed)

        def act(seen: Any) -> np.ndarray:
            action = np.asarray(actor(seen))
            noise = rng.uniform(-1, 1, action.shape)
            return ((1 - self.level) * action + self.level * noise).astype(action.dtype)

        return act


@dataclass(frozen=True)
class Random:
    """Uniform actions (6,) that look at nothing."""

    reads = "pixels"

    def begin(self, seed: int) -> Actor:
        rng = np.random.default_rng(seed)
        return lambda picture: rng.uniform(-1, 1, 6).astype(np.float32)
