"""SanaWM-v0: a world model behind Gymnasium's interface. The class docstring is the datasheet."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike

from sanawm_env.controls import Control, make_control
from sanawm_env.episode import Episode
from sanawm_env.limits import Limits
from sanawm_env.observations import last_frame, make_view
from sanawm_env.simulator import Plan, Simulator
from sanawm_env.snapshot import EnvState, RandomState
from sanawm_env.tasks import Task, make_task
from sanawm_env.window import Window, has_pygame
from world_model.errors import InputError, StateError
from world_model.model import WorldModel
from world_model.state import WorldState


class SanaWMEnv(gym.Env[Any, Any]):
    """A camera that flies through a generated world.

    A start picture is turned into a world; each action moves the camera with six degrees of freedom, and the world
    model generates what it then sees. One step is one chunk of video: F = `model.config.frames_per_step` frames
    (nano: 4 at 16 fps, a quarter of a second). There is no physics: the camera passes through walls.

    ## Action space

    What an action is, `control` says. The default, "twist", is `Box(-1, 1, (6,), float32)`: the camera's twist in its
    own axes (OpenCV: x right, y down, z forward), held for the F frames of the step and integrated frame by frame by
    the SE(3) exponential. Default limits are the speeds that nano's training data shows.

    | index | action | -1 | +1 | limit (argument) |
    | --- | --- | --- | --- | --- |
    | 0 | vx | left | right | 0.6 m/s (`max_speed`) |
    | 1 | vy | up | down | 0.4 m/s (`max_speed`) |
    | 2 | vz | back | ahead | 1.0 m/s (`max_speed`) |
    | 3 | wx | pitch down | pitch up | 30 deg/s (`max_turn`) |
    | 4 | wy | yaw left | yaw right | 45 deg/s (`max_turn`) |
    | 5 | wz | roll left | roll right | 20 deg/s (`max_turn`) |

    | `control` | action space | meaning |
    | --- | --- | --- |
    | "twist" | `Box(-1, 1, (6,), float32)` | the table above |
    | "planar" | `Box(-1, 1, (2,), float32)` | vz and wy of the table, for robots on wheels |
    | "chunked" | `Box(-1, 1, (F, 6), float32)` | a twist for every frame |
    | "keys" | `MultiBinary(8)` | keys held for the step: ahead, back, right, left, turn right, left, look up, down |
    | "discrete" | `Discrete(9)` | 0: no key; 1 to 8: one of these keys |

    Keys mean what they mean in action strings v2 (0.4 m/s, 9.6 deg/s, coasting after release); "keys-v1" and
    "discrete-v1" follow v1 (0.8 m/s, 19.2 deg/s). `env.unwrapped.step_to(poses)` takes the camera through absolute
    poses (F, 4, 4) instead. What is no element of the action space raises InputError, and the world stays as it was.

    ## Observation space

    | `obs` | observation space | what |
    | --- | --- | --- |
    | "rgb" | `Box(0, 255, (H, W, 3), uint8)` | the last frame of the step (nano: 128x128); the default |
    | "float" | `Box(0, 1, (H, W, 3), float32)` | the same in [0, 1] |
    | "dict" | `Dict` | `pixels` as "rgb"; `agent_pos` (9,): position, first two columns of the rotation; `intrinsics` |
    | | | (4,); `goal` (3,) if the task has one; metres, start camera's axes |
    | "latent" | `Box((C, Y, X), float32)` | the world model's own last latent (nano: 48x8x8); nothing is decoded |

    Only "dict" tells where the camera and the goal are; the others leave that to `info`.

    ## Info

    | key | when | value |
    | --- | --- | --- |
    | `pose` | always | (4, 4) float64, camera-to-world of the observed frame, relative to the start frame, metres |
    | `velocity` | always | (6,) float64, twist that moved the camera to the observed frame, m/s and rad/s |
    | `time` | always | float, simulated seconds since the start frame |
    | `intrinsics` | always | (4,) float32: fx, fy, cx, cy in pixels of the observed frame |
    | `is_success` | always | bool, of the observed frame |
    | `goal` | if there is one | (3,) float64, metres in the start camera's axes; privileged |
    | `moved_frames` | step | (2,) int64: first and last frame that this action moved; frame 0 is the start |
    | `frames` | step, on request | (F, H, W, 3) uint8: all frames of the step |
    | `scene`, `prompt` | reset | name of the start scene ("image" for the user's own), text that the world is told |
    | `intrinsics_source` | reset | "given", or the default in words |
    | `world_seed` | reset | int, seed of the world's noise |

    ## Reward

    `task="reach"` (default): by how many metres the step brought the camera nearer to the goal, plus 1.0 when it
    comes within 0.8 m of the goal's centre. The start frame shows the goal, a ball, cube, cone or barrel of strong
    colour. `task="none"`: 0. A task of your own: `sanawm_env.tasks.Task`.

    ## Start

    `reset(seed=, options=)` draws a scene from the bank of start scenes and a seed for the world's noise; equal
    seeds and actions give equal episodes on one machine. Options, any other key raises InputError:

    | option | value | default |
    | --- | --- | --- |
    | `scene` | index or name of a scene in the bank | drawn |
    | `image` | your own start picture (h, w, 3) uint8; resized to cover, cropped at the centre | - |
    | `intrinsics` | (4,) fx, fy, cx, cy in pixels of `image` | 70 degrees horizontal field of view |
    | `prompt` | text | the scene's caption; empty with `image` |
    | `goal` | (3,) metres in the start camera's axes | the scene's; with `image` none: only task "none" accepts it |

    ## Episode end

    Terminated when the task is done (reach: within 0.8 m). Truncated by `gym.make` after 64 steps; its argument
    `max_episode_steps` changes that. A step after termination, or before the first reset, raises StateError.

    ## Snapshots

    `env.unwrapped.get_state()` and `.set_state(state)` keep and restore everything, random draws included, bit for
    bit; `.fork(n, seeds=None)` gives n environments that go on from here. `state.save(folder)` and `EnvState.load`
    (`sanawm_env.snapshot`) write and read them. The time limit that `gym.make` adds counts on by itself.

    ## Arguments

    | argument | default | meaning |
    | --- | --- | --- |
    | `model` | "nano" | a shipped name, a folder, or a WorldModel; by name or folder, weights are read once a process |
    | `task` | "reach" | "reach", "none", or a Task |
    | `device` | "cpu" | torch device; leave out with a WorldModel, which has one |
    | `control` | "twist" | see action space; or a Control of your own |
    | `obs` | "rgb" | see observation space |
    | `max_speed` | (0.6, 0.4, 1.0) | m/s along x, y, z at an action of 1; one number for all |
    | `max_turn` | radians of (30, 45, 20) | rad/s about x, y, z at an action of 1; one number for all |
    | `pitch_limit` | None | radians that the view may point above or below the start's |
    | `height_range` | None | lowest and highest height above the start, metres, as (-0.3, 0.5) |
    | `starts` | the model's own | folder of a bank of start scenes; a model without one uses nano's |
    | `info_frames` | False | all frames of each step in `info` |
    | `render_mode` | None | "rgb_array": the observed frame; "human": a window with every frame (needs pygame) |

    An environment made by name or folder pickles without weights and reads them again where it wakes up.

    ## Versions

    v0: first.
    """

    metadata: ClassVar[dict[str, Any]] = {
        # What cannot be shown here is not promised; gym.make then offers Gymnasium's own window, and names pygame.
        "render_modes": ["rgb_array", "human"] if has_pygame() else ["rgb_array"],
        "render_fps": 4.0,  # nano's; each environment states its own
    }

    def __init__(
        self,
        model: str | Path | WorldModel = "nano",
        task: str | Task = "reach",
        device: str | None = None,
        max_speed: float | Sequence[float] | None = None,
        max_turn: float | Sequence[float] | None = None,
        starts: str | Path | None = None,
        info_frames: bool = False,
        render_mode: str | None = None,
        control: str | Control = "twist",
        obs: str = "rgb",
        pitch_limit: float | None = None,
        height_range: Sequence[float] | None = None,
    ) -> None:
        if render_mode not in (None, "rgb_array", "human"):
            raise InputError(f"render_mode: expected None, 'rgb_array' or 'human', got {render_mode!r}")
        self._task = make_task(task)
        self.info_frames = info_frames
        self.render_mode = render_mode
        self._view = make_view(obs)
        self.simulator = Simulator(
            model=model,
            device=device,
            starts=starts,
            control=make_control(control, max_speed, max_turn),
            limits=Limits(pitch=pitch_limit, height=height_range),
            decodes=self._view.decodes or info_frames or render_mode is not None,
        )
        config = self.model.config
        self.metadata = copy.deepcopy(type(self).metadata) | {"render_fps": config.fps / config.frames_per_step}
        self.action_space = self.simulator.control.space(config.frames_per_step)
        self.observation_space = self._view.space(config, self.task.needs_goal)
        self._window = Window() if render_mode == "human" else None
        self.world: WorldState | None = None  # values, replaced by every step; None before the first reset
        self.episode: Episode | None = None

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """A new world and its start frame as the model sees it. Raises InputError; see the class."""
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

    def fork(self, count: int, seeds: Sequence[int] | None = None) -> "tuple[SanaWMEnv, ...]":
        """`count` environments that go on from here, each for itself, with the same weights; they open no window.

        Without seeds equal actions give equal futures; given seeds (>= 0, one a fork) replace the worlds' noise and
        the draws of later episodes. To step forks in one forward, give `get_state().fork(count)` to the vector
        environment. Raises InputError, and StateError before a reset.
        """
        state = self.get_state().fork(count, seeds)
        forks = tuple(self.sibling() for _ in range(count))
        for i, fork in enumerate(forks):
            fork.set_state(state[i])
        return forks

    def sibling(self) -> "SanaWMEnv":
        """An environment made alike, before its first reset; it shares the weights and opens no window."""
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
        """Close the window, if any; a second call does nothing."""
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
    def model(self) -> WorldModel:
        """The world model; environments of one process that name the same one share it."""
        return self.simulator.model

    @property
    def scenes(self) -> tuple[str, ...]:
        """Names of the start scenes in the bank, in the order of their indices."""
        return tuple(start.name for start in self.simulator.bank)

    def observe(self, episode: Episode) -> Any:
        """What an agent sees of an episode: an element of the observation space."""
        return self._view.observe(episode, self.observation_space)

    def _running(self, name: str) -> tuple[WorldState, Episode]:
        if self.world is None or self.episode is None:
            raise StateError(f"{name}: expected a running episode, got none; call reset first")
        if self.episode.verdict.terminated:
            raise StateError(f"{name}: expected a running episode, got one that has ended; call reset first")
        return self.world, self.episode

    def _fly(self, world: WorldState, episode: Episode, plan: Plan) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.world, (self.episode,) = self.simulator.advance(world, [self.task], [episode], [plan])
        self._show()
        verdict = self.episode.verdict
        info = self.simulator.info(self.episode, self.info_frames)
        return self.observe(self.episode), float(verdict.reward), bool(verdict.terminated), False, info

    def _show(self) -> None:
        if self._window is not None and self.episode is not None and self.episode.frames is not None:
            self._window.show(self.episode.frames, self.model.config.fps)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_window": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.render_mode == "human":
            self._window = Window()
