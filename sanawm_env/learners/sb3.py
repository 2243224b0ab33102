"""Stable-Baselines3's VecEnv over our vector environment: one forward for all worlds. Needs the extra `sb3`.

worlds = SB3VecEnv(gym.make_vec("SanaWM-v0", num_envs=8, autoreset_mode="SameStep"))
PPO("CnnPolicy", worlds).learn(10_000)
"""

from collections.abc import Iterable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from world_model.errors import InputError
from world_model.train.data.source import optional_module

VecEnv: Any = optional_module("stable_baselines3.common.vec_env", "sb3").VecEnv
Indices = int | Iterable[int] | None  # of worlds; None: all


class SB3VecEnv(VecEnv):
    """A Gymnasium vector environment in the mode SAME_STEP, as Stable-Baselines3 calls it.

    `infos[i]` is that of world i; where its episode ended, that of the last frame, with `terminal_observation` and
    `TimeLimit.truncated`, while the observation and `reset_infos[i]` are those of the next episode. Seeds and options
    are kept for the next `reset`; a seed s is s + i in world i. Raises InputError for another mode.
    """

    def __init__(self, worlds: gym.vector.VectorEnv) -> None:
        mode = worlds.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise InputError(f"autoreset_mode: expected 'SameStep', got {mode.value if mode else None!r}")
        self.worlds: Any = worlds.unwrapped
        self._actions: np.ndarray | None = None
        super().__init__(worlds.num_envs, worlds.single_observation_space, worlds.single_action_space)
        self.metadata = worlds.metadata | {"render_modes": self.metadata["render_modes"]}

    def reset(self) -> Any:
        """Start frames of all worlds (N, ...), or a dict of them."""
        seeds = None if all(seed is None for seed in self._seeds) else self._seeds
        options = {"per_world": self._options} if any(self._options) else None
        observations, infos = self.worlds.reset(seed=seeds, options=options)
        self.reset_infos = split(infos, self.num_envs)
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Observations, rewards (N,) float32, dones (N,) bool, infos. Raises InputError for a step without actions."""
        if self._actions is None:
            raise InputError("step_wait: expected actions from step_async, got none")
        actions, self._actions = self._actions, None
        observations, rewards, terminated, truncated, batch = self.worlds.step(actions)
        dones, infos = terminated | truncated, split(batch, self.num_envs)
        for i, info in enumerate(infos):
            if dones[i]:
                last, final = info.pop("final_obs"), info.pop("final_info")
                self.reset_infos[i] = info
                infos[i] = info = final | {"terminal_observation": last}
            info["TimeLimit.truncated"] = bool(truncated[i] and not terminated[i])
        return observations, rewards.astype(np.float32), dones, infos

    def close(self) -> None:
        self.worlds.close()

    def get_images(self) -> list[np.ndarray | None]:
        return list(self.worlds.render())

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        values = self.worlds.get_attr(attr_name)
        return [values[i] for i in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        chosen = list(self._get_indices(indices))
        others = [i for i in range(self.num_envs) if i not in chosen]
        values = list(self.worlds.get_attr(attr_name)) if others else [value] * self.num_envs
        self.worlds.set_attr(attr_name, [value if i in chosen else values[i] for i in range(self.num_envs)])

    def env_method(self, method_name: str, *method_args: Any, indices: Indices = None, **method_kwargs: Any) -> list:
        """What a method of the chosen worlds returns.

        A method that moves worlds or restores them moves all: choose them all. Raises InputError for some.
        """
        chosen = list(self._get_indices(indices))
        if chosen != list(range(self.num_envs)) and method_name in MOVING:
            raise InputError(f"env_method {method_name!r}: expected all worlds, which it moves, got {chosen}")
        results = self.worlds.call(method_name, *method_args, **method_kwargs)
        return [results[i] for i in chosen]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: Indices = None) -> list[bool]:
        """Whether the worlds are wrapped one by one: they never are. Monitor's part is VecMonitor's."""
        return [False for _ in self._get_indices(indices)]


MOVING = ("reset", "step", "step_to", "set_state")


def split(batch: dict[str, Any], worlds: int) -> list[dict[str, Any]]:
    """Gymnasium's info of a batch, which masks by `_key` who has a key, as a dict a world."""
    infos: list[dict[str, Any]] = [{} for _ in range(worlds)]
    for key, values in batch.items():
        if not (key.startswith("_") and key[1:] in batch):
            each = split(values, worlds) if isinstance(values, dict) else values
            for i in np.flatnonzero(batch.get(f"_{key}", np.ones(worlds, bool))):
                infos[i][key] = each[i]
    return infos
