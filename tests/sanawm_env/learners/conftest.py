"""Two episodes of three steps, played with an untrained model."""

from pathlib import Path

import gymnasium as gym
import pytest

import sanawm_env  # noqa: F401  (registers the environments)
from sanawm_env.learners.episodes import Recorded, record_episodes


@pytest.fixture
def dict_env(model_folder: Path) -> gym.Env:
    env = gym.make("SanaWM-v0", model=str(model_folder), obs="dict", max_episode_steps=3)
    env.action_space.seed(0)
    return env


@pytest.fixture
def episodes(dict_env: gym.Env) -> tuple[Recorded, ...]:
    return record_episodes(dict_env, lambda observation: dict_env.action_space.sample(), count=2, seed=5)
