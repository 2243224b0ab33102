"""Episodes without a world behind them: tasks are judged on values alone."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

from sanawm_env import se3
from sanawm_env.episode import Episode
from sanawm_env.tasks import Task, Verdict


@pytest.fixture
def at() -> Callable[..., Episode]:
    """A function that makes an episode whose camera is at a position, turned by a vector of axis times angle."""

    def at(x: float, y: float, z: float, turn: Any = (0.3, -1.1, 0.2), **fields: Any) -> Episode:
        pose = se3.exp(np.array([0, 0, 0, *turn], np.float64))
        pose[:3, 3] = x, y, z
        known = {"scene": "scene-0", "prompt": "", "intrinsics_source": "given", "world_seed": 7, "goal": None}
        known |= {"intrinsics": np.full(4, 32, np.float32), "latent": None, "frames": None, "pose": pose}
        return Episode(**(known | fields))

    return at


@pytest.fixture
def judge() -> Callable[[Task, Iterable[Episode]], list[Verdict]]:
    """A function that returns the verdicts of an episode, start included, as the environment asks for them."""

    def judge(task: Task, episodes: Iterable[Episode]) -> list[Verdict]:
        path = iter(episodes)
        before = next(path)
        verdicts = [task.begin(before)]
        before = dataclasses.replace(before, verdict=verdicts[0], aims={})
        for after in path:
            after = dataclasses.replace(after, verdict=before.verdict, steps=before.steps + 1)
            verdicts.append(task.judge(before, after))
            before = dataclasses.replace(after, verdict=verdicts[-1])
        return verdicts

    return judge
