"""The camera environment: Gymnasium's interface to the worlds of any engine.

`SanaWMEnv` (env.py) and `SanaWMTwinEnv` (twin.py) are this with an engine of their own; another engine needs no class:
`CameraEnv(engine, Settings(task="none"))`.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike

from sanawm_env.controls import Control, make_control
from sanawm_env.engine import Engine, Pixels, Worlds
from sanawm_env.episode import Episode
from sanawm_env.limits import Limits
from sanawm_env.observations import Latent, View, last_frame, make_view, show_task, with_task
from sanawm_env.reliability import Reliability
from sanawm_env.simulator import Plan, Simulator
from sanawm_env.snapshot import EnvState, RandomState
from sanawm_env.starts import Start
from sanawm_env.tasks import Task, make_task
from sanawm_env.window import Window, has_pygame
from world_model.errors import InputError, StateError


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What an environment is told beside its engine; `SanaWMEnv` says what each means. bank: its start scenes."""

    bank: tuple[Start, ...] = ()
    task: str | Task = "reach"
    control: str | Control = "twist"
    obs: str | View = "rgb"
    max_speed: float | Sequence[float] | None = None
    max_turn: float | Sequence[float] | None = None
    pitch_limit: float | None = None
    height_range: Sequence[float] | None = None
    info_frames: bool = False
    render_mode: str | None = None
    reliability: Reliability | None = None

    def __post_init__(self) -> None:
        if self.render_mode not in (None, "rgb_array", "human"):
            raise InputError(f"render_mode: expected None, 'rgb_array' or 'human', got {self.render_mode!r}")

    def pixels(self, view: View) -> Pixels:
        """Which frames of a step somebody looks at: all, the last, or none."""
        if self.info_frames or self.render_mode == "human":
            return "all"
        return "last" if view.decodes or self.render_mode is not None else "none"


class CameraEnv(gym.Env[Any, Any]):
    """A camera that flies through the worlds of an engine. Raises InputError for settings that it cannot have."""

    metadata: ClassVar[dict[str, Any]] = {
        # What cannot be shown here is not promised; gym.make then offers Gymnasium's own window, and names pygame.
        "render_modes": ["rgb_array", "human"] if has_pygame() else ["rgb_array"],
        "render_fps": 4.0,  # nano's; each environment states its own
    }

    def __init__(self, engine: Engine[Any], settings: Settings) -> None:
        self._task = make_task(settings.task)
        self.info_frames, self.render_mode = settings.info_frames, settings.render_mode
        self._view = make_view(settings.obs) if isinstance(settings.obs, str) else settings.obs
        if isinstance(self._view, Latent) and not engine.has_latents:
            raise InputError(f"obs: expected pixels from {engine.fingerprint}, which has no latents, got 'latent'")
        self.simulator = Simulator(
            engine=engine,
            bank=settings.bank,
            control=make_control(settings.control, settings.max_speed, settings.max_turn),
            limits=Limits(pitch=settings.pitch_limit, height=settings.height_range),
            pixels=settings.pixels(self._view),
            reliability=settings.reliability,
        )
        config = engine.config
        self.metadata = copy.deepcopy(type(self).metadata) | {"render_fps": config.fps / config.frames_per_step}
        self.action_space = self.simulator.control.space(config.frames_per_step)
        self.observation_space = with_task(self._view.space(config, self.task.needs_goal), self.task, config)
        self._window = Window() if self.render_mode == "human" else None
        self.world: Worlds | None = None  # values, replaced by every step; None before the first reset
        self.episode: Episode | None = None

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """A new world and its start frame. Raises InputError; see the class."""
        super().reset(seed=seed)
        draw = self.simulator.draw(self.task, options, self.np_random)
        self.world, (self.episode,) = self.simulator.begin([self.task], [draw])
        self._show()
        return self.observe(self.episode), self.simulator.info(self.episode, self.info_frames)

    def step(self, action: ArrayLike) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One chunk of video under one action. Raises InputError for a bad action, StateError out of order."""
        world, episode = self._running("step")
        return self._fly(world, episode, self.simulator.plan(episode, action))

    def step_to(self, poses: ArrayLike) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One chunk of video along poses (F, 4, 4) floating point, one a coming frame, instead of an action.

        Camera-to-world relative to the start frame, metres, OpenCV axes; rigid to 1e-3, and made exactly so. Returns
        what `step` does, and counts as a step, though not for the wrapper of `gym.make` that limits time. Raises
        InputError, for poses outside `pitch_limit` and `height_range` too, and StateError out of order.
        """
        world, episode = self._running("step_to")
        return self._fly(world, episode, self.simulator.plan_to(poses))

    def get_state(self) -> EnvState:
        """Everything about the running episode, and what draws those after it. Raises StateError before a reset.

        A value: it costs no copy, and no later step changes it. The time limit that `gym.make` adds is not in it.
        """
        if self.world is None or self.episode is None:
            raise StateError("get_state: expected a running episode, got none; call reset first")
        return EnvState(
            world=self.world, episodes=(self.episode,), random=(RandomState.of(self.np_random, self.np_random_seed),)
        )

    def set_state(self, state: EnvState) -> tuple[Any, dict[str, Any]]:
        """Go on from a snapshot of one world; returns the observation and info of its last step or reset.

        Raises StateError for more worlds, another model, or a snapshot without pixels where they are needed.
        """
        if len(state) != 1:
            raise StateError(f"set_state: expected one world, got {len(state)}; choose one with state[i]")
        self.simulator.check(state.world, state.episodes, [self.task])
        self.world, (self.episode,) = state.world, state.episodes
        self._np_random, self._np_random_seed = state.random[0].revive(), state.random[0].seed
        self._show()
        return self.observe(self.episode), self.simulator.info(self.episode, self.info_frames)

    def fork(self, count: int, seeds: Sequence[int] | None = None) -> "tuple[CameraEnv, ...]":
        """`count` environments that go on from here, each for itself, with the same engine; they open no window.

        Without seeds equal actions give equal futures; given seeds (>= 0, one a fork) replace the worlds' noise and
        the draws of later episodes. To step forks in one forward, give `get_state().fork(count)` to the vector
        environment. Raises InputError, and StateError before a reset.
        """
        state = self.get_state().fork(count, seeds)
        forks = tuple(self.sibling() for _ in range(count))
        for i, fork in enumerate(forks):
            fork.set_state(state[i])
        return forks

    def sibling(self) -> "CameraEnv":
        """An environment made alike, before its first reset; it shares the engine and opens no window."""
        other = copy.copy(self)
        other.action_space, other.observation_space = copy.deepcopy((self.action_space, self.observation_space))
        other.metadata = copy.deepcopy(self.metadata)
        other.render_mode = None if self.render_mode == "human" else self.render_mode
        other._window = other.world = other.episode = None
        other._np_random = other._np_random_seed = None
        return other

    def render(self) -> np.ndarray | None:
        """The observed frame (H, W, 3) uint8 in mode "rgb_array"; a window needs no call and returns None."""
        if self.episode is None:
            raise StateError("render: expected a running episode, got none; call reset first")
        if self.render_mode is None:
            gym.logger.warn(
                "render: expected render_mode='rgb_array' or 'human' when the environment is made, got None"
            )
        return last_frame(self.episode) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Close the window, if any, and what the engine holds; a second call does nothing."""
        self.simulator.engine.close()
        if self._window is not None:
            self._window.close()

    @property
    def task(self) -> Task:
        """What the agent is paid for; set one by name or as an object."""
        return self._task

    @task.setter
    def task(self, task: str | Task) -> None:
        self._task = make_task(task)

    @property
    def scenes(self) -> tuple[str, ...]:
        """Names of the start scenes in the bank, in the order of their indices."""
        return tuple(start.name for start in self.simulator.bank)

    def observe(self, episode: Episode) -> Any:
        """What an agent sees of an episode: an element of the observation space."""
        seen = self._view.observe(episode, self.observation_space)
        return show_task(seen, self.observation_space, self.task, episode)

    def _running(self, name: str) -> tuple[Worlds, Episode]:
        if self.world is None or self.episode is None:
            raise StateError(f"{name}: expected a running episode, got none; call reset first")
        if self.episode.verdict.terminated or self.episode.verdict.truncated:
            raise StateError(f"{name}: expected a running episode, got one that has ended; call reset first")
        return self.world, self.episode

    def _fly(self, world: Worlds, episode: Episode, plan: Plan) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.world, (self.episode,) = self.simulator.advance(world, [self.task], [episode], [plan])
        self._show()
        verdict = self.episode.verdict
        info = self.simulator.info(self.episode, self.info_frames)
        ends = bool(verdict.terminated), bool(verdict.truncated)
        return self.observe(self.episode), float(verdict.reward), *ends, info

    def _show(self) -> None:
        if self._window is not None and self.episode is not None and self.episode.frames is not None:
            self._window.show(self.episode.frames, self.simulator.engine.config.fps)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_window": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.render_mode == "human":
            self._window = Window()
