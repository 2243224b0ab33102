"""Many worlds behind Gymnasium's vector interface, one call of their engine for all of them.

`SanaWMVectorEnv` (vector.py) and `SanaWMTwinVectorEnv` (twin.py) are this for an environment of their own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate

from sanawm_env.camera_env import CameraEnv
from sanawm_env.engine import Worlds
from sanawm_env.episode import Episode
from sanawm_env.snapshot import EnvState, RandomState
from world_model.errors import InputError, StateError


class CameraVectorEnv(gym.vector.VectorEnv[Any, Any, np.ndarray]):
    """`num_envs` worlds like that of one environment, which becomes the first of them; they step together.

    `SanaWMVectorEnv` says the rest. Raises InputError.
    """

    def __init__(
        self,
        first: CameraEnv,
        num_envs: int,
        max_episode_steps: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
    ) -> None:
        if num_envs < 1 or (max_episode_steps is not None and max_episode_steps == 0):
            got = num_envs, max_episode_steps
            raise InputError(f"num_envs, max_episode_steps: expected at least 1 of each, got {got}")
        without_window(first.render_mode)
        try:
            self.autoreset_mode = AutoresetMode(autoreset_mode)
        except ValueError as error:
            modes = [mode.value for mode in AutoresetMode]
            raise InputError(f"autoreset_mode: expected one of {modes}, got {autoreset_mode!r}") from error
        self.num_envs, self.render_mode = num_envs, first.render_mode
        # Gymnasium means "no limit" by -1
        self.max_episode_steps = None if max_episode_steps is None or max_episode_steps < 0 else max_episode_steps
        # Each holds its episode, task and draws; their worlds are one batch, `_world`.
        self.envs = [first, *(first.sibling() for _ in range(num_envs - 1))]
        self.simulator = first.simulator
        self.metadata = first.metadata | {"render_modes": ["rgb_array"], "autoreset_mode": self.autoreset_mode}
        self.single_action_space, self.single_observation_space = first.action_space, first.observation_space
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._world: Worlds | None = None

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start frames of all worlds, or of those of `reset_mask`; info of the worlds that began. Raises InputError."""
        chosen, each = self._read(options)
        seeds = [None if seed is None else seed + i for i in range(self.num_envs)] if is_one(seed) else list(seed)
        if len(seeds) != self.num_envs:
            raise InputError(f"seed: expected {self.num_envs}, one a world, got {len(seeds)}")
        others = [i for i in range(self.num_envs) if i not in chosen]
        if others and self._world is None:
            raise StateError(f"reset_mask: expected all worlds at the first reset, got only {chosen}")
        for i in chosen:
            gym.Env.reset(self.envs[i], seed=seeds[i])
        begun = self._begin(chosen, [each[i] for i in chosen])
        rest = [] if self._world is None or not others else [(others, self._world[others])]
        self._world = merge([(chosen, begun), *rest])
        return self._observe(), self._infos(chosen)

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One chunk of video in every world. Raises InputError for a bad action, and no world has changed then.

        Raises StateError before the first reset, and for an episode that has ended unless the mode is NEXT_STEP.
        """
        if self._world is None:
            raise StateError("step: expected running episodes, got none; call reset first")
        ended = [i for i, env in enumerate(self.envs) if self._ended(env)]
        if ended and self.autoreset_mode is not AutoresetMode.NEXT_STEP:
            raise StateError(f"step: expected running episodes, got ended ones in worlds {ended}; reset them first")
        moving = [i for i in range(self.num_envs) if i not in ended]
        moved = self._move(moving, actions)
        parts = [(moving, moved)] if moved else []
        if ended:
            parts.append((ended, self._begin(ended, [None] * len(ended))))
        self._world = merge(parts)
        episodes = self._episodes()
        rewards = np.array([episode.verdict.reward for episode in episodes], np.float64)
        terminated = np.array([episode.verdict.terminated for episode in episodes], np.bool_)
        truncated = np.array([self._truncated(episode) for episode in episodes], np.bool_)
        infos = self._end_and_begin() if self.autoreset_mode is AutoresetMode.SAME_STEP else {}
        return self._observe(), rewards, terminated, truncated, self._infos(range(self.num_envs), infos)

    def get_state(self) -> EnvState:
        """Everything about all worlds, as a value. Raises StateError before the first reset."""
        if self._world is None:
            raise StateError("get_state: expected running episodes, got none; call reset first")
        random = tuple(RandomState.of(env.np_random, env.np_random_seed) for env in self.envs)
        return EnvState(world=self._world, episodes=self._episodes(), random=random)

    def set_state(self, state: EnvState) -> tuple[Any, dict[str, Any]]:
        """Go on from a snapshot of N worlds, such as `env.get_state().fork(N)`; returns observations and infos.

        Raises StateError for another number of worlds, another model, or missing pixels.
        """
        if len(state) != self.num_envs:
            raise StateError(f"set_state: expected {self.num_envs} worlds, got {len(state)}")
        self.simulator.check(state.world, state.episodes, [env.task for env in self.envs])
        self._world = state.world
        for env, episode, random in zip(self.envs, state.episodes, state.random, strict=True):
            env.episode, env._np_random, env._np_random_seed = episode, random.revive(), random.seed
        return self._observe(), self._infos(range(self.num_envs))

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """What a method of each world returns, or its attribute. Worlds that a method steps or restores have moved."""
        if not callable(self.envs[0].get_wrapper_attr(name)):
            return self.get_attr(name)
        lent = [None] * self.num_envs if self._world is None else [self._world[i] for i in range(self.num_envs)]
        for env, world in zip(self.envs, lent, strict=True):
            env.world = world
        results = tuple(env.get_wrapper_attr(name)(*args, **kwargs) for env in self.envs)
        worlds = [env.world for env in self.envs]
        if any(world is not before for world, before in zip(worlds, lent, strict=True)):
            self._world = self._world.cat([world for world in worlds if world is not None])
        for env in self.envs:
            env.world = None
        return results

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """An attribute of each world."""
        return tuple(env.get_wrapper_attr(name) for env in self.envs)

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute of each world: a list or tuple holds one value a world, anything else is for all."""
        each = values if isinstance(values, list | tuple) else [values] * self.num_envs
        if len(each) != self.num_envs:
            raise InputError(f"set_attr {name!r}: expected {self.num_envs} values, got {len(each)}")
        for env, value in zip(self.envs, each, strict=True):
            env.set_wrapper_attr(name, value)

    def render(self) -> tuple[np.ndarray | None, ...]:
        """The observed frame of each world, (H, W, 3) uint8, in mode "rgb_array"."""
        return tuple(env.render() for env in self.envs)

    def close_extras(self, **_: Any) -> None:
        """Let go of what the engine holds; `close` calls it, with arguments of Gymnasium's that do not matter here.

        Gymnasium closes what refused its arguments, too, and that holds nothing yet.
        """
        if hasattr(self, "simulator"):
            self.simulator.engine.close()

    @property
    def np_random(self) -> tuple[np.random.Generator, ...]:
        """The generator of each world's draws."""
        return self.get_attr("np_random")

    @property
    def np_random_seed(self) -> tuple[int, ...]:
        return self.get_attr("np_random_seed")

    def _read(self, options: Mapping[str, Any] | None) -> tuple[list[int], list[dict[str, Any]]]:
        """Which worlds to reset, and the options of each. Raises InputError."""
        shared = dict(options or {})
        mask = shared.pop("reset_mask", np.ones(self.num_envs, np.bool_))
        each = shared.pop("per_world", [{}] * self.num_envs)
        if not isinstance(mask, np.ndarray) or mask.shape != (self.num_envs,) or mask.dtype != np.bool_:
            raise InputError(f"reset_mask: expected an array ({self.num_envs},) bool, got {mask!r}")
        if not mask.any():
            raise InputError("reset_mask: expected at least one world, got none")
        if len(each) != self.num_envs:
            raise InputError(f"per_world: expected options for {self.num_envs} worlds, got {len(each)}")
        return np.flatnonzero(mask).tolist(), [shared | dict(own or {}) for own in each]

    def _begin(self, chosen: Sequence[int], options: Sequence[Mapping[str, Any] | None]) -> Worlds:
        """New episodes in some worlds; returns their part of the batch."""
        envs = [self.envs[i] for i in chosen]
        tasks = [env.task for env in envs]
        draws = [self.simulator.draw(env.task, own, env.np_random) for env, own in zip(envs, options, strict=True)]
        world, episodes = self.simulator.begin(tasks, draws)
        for env, episode in zip(envs, episodes, strict=True):
            env.episode = episode
        return world

    def _move(self, chosen: Sequence[int], actions: Any) -> Worlds | None:
        """One step of some worlds; returns their part of the batch, None if there are none."""
        given = list(iterate(self.action_space, actions))
        if len(given) != self.num_envs:
            raise InputError(f"actions: expected {self.num_envs}, one a world, got {len(given)}")
        if self._world is None or not chosen:
            return None
        envs = [self.envs[i] for i in chosen]
        episodes = [episode for env in envs if (episode := env.episode) is not None]
        plans = [self.simulator.plan(e, given[i]) for e, i in zip(episodes, chosen, strict=True)]
        world = self._world if len(chosen) == self.num_envs else self._world[chosen]
        world, after = self.simulator.advance(world, [env.task for env in envs], episodes, plans)
        for env, episode in zip(envs, after, strict=True):
            env.episode = episode
        return world

    def _end_and_begin(self) -> dict[str, Any]:
        """Replace ended episodes within the step; returns their last observations and infos."""
        infos: dict[str, Any] = {}
        ended = [i for i, env in enumerate(self.envs) if self._ended(env)]
        if not ended or self._world is None:
            return infos
        for i in ended:
            env, episode = self.envs[i], self._episodes()[i]
            last = {
                "final_obs": env.observe(episode),
                "final_info": self.simulator.info(episode, env.info_frames),
            }
            infos = self._add_info(infos, last, i)
        others = [i for i in range(self.num_envs) if i not in ended]
        begun = self._begin(ended, [None] * len(ended))
        self._world = merge([(ended, begun), *([(others, self._world[others])] if others else [])])
        return infos

    def _episodes(self) -> tuple[Episode, ...]:
        return tuple(episode for env in self.envs if (episode := env.episode) is not None)

    def _truncated(self, episode: Episode) -> bool:
        out_of_time = self.max_episode_steps is not None and episode.steps >= self.max_episode_steps
        return out_of_time or bool(episode.verdict.truncated)

    def _ended(self, env: CameraEnv) -> bool:
        return env.episode is not None and (env.episode.verdict.terminated or self._truncated(env.episode))

    def _observe(self) -> Any:
        """A fresh batch of observations."""
        seen = [env.observe(episode) for env, episode in zip(self.envs, self._episodes(), strict=True)]
        return concatenate(
            self.single_observation_space, seen, create_empty_array(self.single_observation_space, self.num_envs)
        )

    def _infos(self, chosen: Sequence[int], infos: dict[str, Any] | None = None) -> dict[str, Any]:
        infos, episodes = infos or {}, self._episodes()
        for i in chosen:
            infos = self._add_info(infos, self.simulator.info(episodes[i], self.envs[i].info_frames), i)
        return infos


def without_window(render_mode: str | None) -> str | None:
    """A render mode that many worlds can have. Raises InputError."""
    if render_mode not in (None, "rgb_array"):
        raise InputError(f"render_mode: expected None or 'rgb_array', got {render_mode!r}")
    return render_mode


def is_one(seed: int | Sequence[int | None] | None) -> bool:
    """Whether a seed is one number, or none, rather than one a world."""
    return seed is None or isinstance(seed, int | np.integer)


def merge(parts: Sequence[tuple[Sequence[int], Worlds]]) -> Worlds:
    """One batch in the order of the worlds' indices, out of parts that name theirs."""
    if len(parts) == 1:
        return parts[0][1]
    order = np.argsort(np.concatenate([np.asarray(indices) for indices, _ in parts]))
    return parts[0][1].cat([world for _, world in parts])[order.tolist()]
