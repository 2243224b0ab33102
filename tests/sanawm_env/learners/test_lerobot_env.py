"""The environment as LeRobot's evaluation asks for it; LeRobot itself is needed nowhere."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sanawm_env.learners.lerobot_env import make_env
from world_model.errors import InputError


@pytest.mark.parametrize("use_async_envs", [False, True])
def test_what_lerobot_asks_for(model_folder: Path, use_async_envs: bool) -> None:
    worlds = make_env(n_envs=2, use_async_envs=use_async_envs, model=str(model_folder))
    observations, _ = worlds.reset(seed=[0, 1])
    assert sorted(observations) == ["agent_pos", "pixels"]
    assert worlds.observation_space.contains(observations)
    assert list(worlds.call("task_description")) == ["reach the red ball"] * 2
    assert list(worlds.call("task")) == ["reach"] * 2
    assert worlds.call("_max_episode_steps")[0] == 64
    observations, _, _, _, _ = worlds.step(np.full((2, 6), 1.5, np.float32))  # beyond the space: cut
    assert worlds.observation_space.contains(observations)
    worlds.close()


def test_the_end_of_an_episode(model_folder: Path) -> None:
    worlds = make_env(n_envs=2, model=str(model_folder))
    assert all(hasattr(worlds.envs[0], name) for name in ("task", "task_description"))
    worlds.reset(seed=[0, 1], options={"per_world": [{"goal": [0, 0, 1.0]}, {"goal": [0, 0, 9.0]}]})
    _, _, terminated, _, infos = worlds.step(np.tile(np.array([0, 0, 1, 0, 0, 0], np.float32), (2, 1)))
    assert terminated.tolist() == [True, False]
    assert infos["final_info"]["is_success"].tolist() == [True, False]
    assert sorted(infos["final_obs"][0]) == ["agent_pos", "pixels"]


def test_settings_that_it_does_not_know(model_folder: Path) -> None:
    with pytest.raises(InputError, match="cfg: expected no gym_kwargs"):
        make_env(model=str(model_folder), cfg=SimpleNamespace(gym_kwargs={"obs": "rgb"}))
