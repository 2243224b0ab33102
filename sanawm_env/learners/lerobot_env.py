"""Our environments as LeRobot's evaluation calls them: `make_env` is what an EnvHub repository's env.py offers.

LeRobot asks for observations `pixels` and `agent_pos`, the attributes `task` and `task_description` of every world,
`call("_max_episode_steps")`, and `is_success` in the final info of the autoreset mode SAME_STEP. Nothing here
imports LeRobot.
"""

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

import sanawm_env  # noqa: F401  (registers the environments, also in the processes of AsyncVectorEnv)
from sanawm_env.learners.instruction import instruction
from world_model.errors import InputError

KEYS = ("pixels", "agent_pos")


def make_env(
    n_envs: int = 1, use_async_envs: bool = False, cfg: Any = None, env_id: str = "SanaWM-v0", model: str = "nano"
) -> gym.vector.VectorEnv:
    """`n_envs` worlds of one forward or, with `use_async_envs`, each in a process of its own with its own weights.

    cfg: LeRobot hands its own on; only None and one without settings for the environment are known here.
    """
    if getattr(cfg, "gym_kwargs", None):
        raise InputError(f"cfg: expected no gym_kwargs, got {cfg.gym_kwargs}; give make_env its own arguments")
    given = {"id": env_id, "model": model, "obs": "dict"}
    if use_async_envs:
        # A process that is forked after torch has used several threads waits forever for those it did not inherit.
        return gym.vector.AsyncVectorEnv(
            [partial(make_one, given)] * n_envs, context="spawn", autoreset_mode=AutoresetMode.SAME_STEP
        )
    return LeRobotVectorEnv(gym.make_vec(**given, num_envs=n_envs, autoreset_mode="SameStep"))


def make_one(given: dict[str, Any]) -> gym.Env:
    return LeRobotEnv(gym.make(**given))


class LeRobotEnv(gym.Wrapper):
    """One world. Actions beyond the action space are cut, since policies that regress them overshoot."""

    task = "reach"

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.observation_space = chosen(env.observation_space)

    @property
    def task_description(self) -> str:
        """What is to be done, such as "reach the purple ball"."""
        episode = self.env.unwrapped.episode
        return instruction(self.task, "" if episode is None else episode.prompt)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        return {key: observation[key] for key in KEYS}, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, *rest = self.env.step(cut(action, self.action_space))
        return {key: observation[key] for key in KEYS}, *rest


class LeRobotVectorEnv(gym.vector.VectorWrapper):
    """All worlds in one forward. `envs[i]` is world i as LeRobot looks at it."""

    def __init__(self, env: gym.vector.VectorEnv) -> None:
        super().__init__(env)
        self.single_observation_space = chosen(env.single_observation_space)
        self.observation_space = chosen(env.observation_space)
        self.envs = [LeRobotEnv(world) for world in env.unwrapped.envs]

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observations, infos = self.env.reset(seed=seed, options=options)
        return {key: observations[key] for key in KEYS}, infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        observations, rewards, terminated, truncated, infos = self.env.step(cut(actions, self.action_space))
        for i in np.flatnonzero(infos.get("_final_obs", ())):
            infos["final_obs"][i] = {key: infos["final_obs"][i][key] for key in KEYS}
        return {key: observations[key] for key in KEYS}, rewards, terminated, truncated, infos

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """What a method of each world returns, or its attribute; those that LeRobot knows of, too."""
        if name == "_max_episode_steps":
            return (self.env.unwrapped.max_episode_steps,) * self.num_envs
        if name in ("task", "task_description"):
            return tuple(getattr(world, name) for world in self.envs)
        return self.env.call(name, *args, **kwargs)

    def render(self) -> tuple[np.ndarray | None, ...]:
        return self.env.render()


def chosen(space: gym.Space) -> gym.spaces.Dict:
    """The part of an observation space that LeRobot knows."""
    return gym.spaces.Dict({key: space[key] for key in KEYS})


def cut(action: Any, space: gym.Space) -> Any:
    """The nearest element of a Box; other spaces have no nearest."""
    return np.clip(action, space.low, space.high) if isinstance(space, gym.spaces.Box) else action
