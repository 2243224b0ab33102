"""Small untrained models and banks of start scenes: the environment's plumbing does not depend on good pictures."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from sanawm_env.env import SanaWMEnv
from sanawm_env.starts import Start, write_starts
from world_model.checkpoint import save_folder
from world_model.config import WorldConfig
from world_model.model import WorldModel
from world_model.presets import nano, tiny_sana


def small_nano() -> WorldConfig:
    """Nano's semantics (one latent a step, no pending start) with two thin blocks and 64x64 pixels."""
    full = nano(vocabulary=("a", "room", "with", "red", "ball"))
    return dataclasses.replace(
        full,
        name="small-nano",
        transformer=dataclasses.replace(full.transformer, depth=2, heads=2),
        tokenizer=dataclasses.replace(full.tokenizer, height=64, width=64, base_width=8),
    )


def smooth_picture(seed: int, height: int, width: int) -> np.ndarray:
    """An (H, W, 3) uint8 picture that is not noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / rng.uniform(3, 20) + rng.uniform(0, 9)) + np.cos(y / rng.uniform(3, 20)) for _ in range(3)]
    return ((np.stack(waves, -1) + 2) * 63).astype(np.uint8)


def make_bank(count: int = 3, height: int = 64, width: int = 64) -> list[Start]:
    """Scenes whose goal lies three metres ahead, a little lower."""
    return [
        Start(
            name=f"scene-{i}",
            image=smooth_picture(i, height, width),
            prompt="a room with a red ball",
            intrinsics=np.array([45.0 + i, 45.0 + i, width / 2, height / 2], np.float32),
            goal=np.array([0.1 * i, 0.5, 3.0]),
            meta={"index": i},
        )
        for i in range(count)
    ]


@pytest.fixture(scope="session")
def save_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[WorldConfig], Path]:
    """A function that writes an untrained model with a bank of start scenes and returns its folder."""

    def save(config: WorldConfig) -> Path:
        folder = tmp_path_factory.mktemp(config.name)
        model = WorldModel.random(config)
        save_folder(folder, config, (model.transformer, model.tokenizer, model.text), torch.float32)
        write_starts(folder / "starts", make_bank())
        return folder

    return save


@pytest.fixture(scope="session")
def model_folder(save_model: Callable[[WorldConfig], Path]) -> Path:
    """A model of nano's semantics: 64x64 pixels, 4 frames a step."""
    return save_model(small_nano())


@pytest.fixture(scope="session")
def sana_folder(save_model: Callable[[WorldConfig], Path]) -> Path:
    """A model of the released semantics: pending start, 64x96 pixels, 24 frames a step."""
    return save_model(tiny_sana())


@pytest.fixture(params=["nano", "sana"])
def any_folder(request: pytest.FixtureRequest) -> Path:
    """Each of the two."""
    return request.getfixturevalue({"nano": "model_folder", "sana": "sana_folder"}[request.param])


@pytest.fixture
def env(model_folder: Path) -> SanaWMEnv:
    return SanaWMEnv(model=model_folder)


@pytest.fixture
def fly() -> Callable[..., list[Any]]:
    """A function that returns everything that an episode of seeded random actions returned."""

    def fly(env: gym.Env, seed: int, steps: int = 3) -> list[Any]:
        env.action_space.seed(seed)
        return [env.reset(seed=seed), *(env.step(env.action_space.sample()) for _ in range(steps))]

    return fly
