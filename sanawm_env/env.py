"""SanaWM-v0: a world model behind Gymnasium's interface. The class docstring is the datasheet."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from sanawm_env.actions import MAX_SPEED, MAX_TURN, check_action, integrate_twist, twist_limits
from sanawm_env.models import find_device, shared_model
from sanawm_env.starts import choose_start, find_bank
from sanawm_env.tasks import Task, make_task
from sanawm_env.window import Window, has_pygame
from world_model import checkpoint
from world_model.errors import InputError, StateError
from world_model.model import WorldModel
from world_model.state import WorldState


class SanaWMEnv(gym.Env[np.ndarray, np.ndarray]):
    """A camera that flies through a generated world.

    A start picture is turned into a world; each action moves the camera with six degrees of freedom, and the world
    model generates what it then sees. One step is one chunk of video: F = `model.config.frames_per_step` frames
    (nano: 4 at 16 fps, a quarter of a second). There is no physics: the camera passes through walls.

    ## Action space

    `Box(-1, 1, (6,), float32)`: the camera's twist in its own axes (OpenCV: x right, y down, z forward), held for
    the F frames of the step and integrated frame by frame by the SE(3) exponential. Default limits are the speeds
    that nano's training data shows.

    | index | action | -1 | +1 | limit (argument) |
    | --- | --- | --- | --- | --- |
    | 0 | vx | left | right | 0.6 m/s (`max_speed`) |
    | 1 | vy | up | down | 0.4 m/s (`max_speed`) |
    | 2 | vz | back | ahead | 1.0 m/s (`max_speed`) |
    | 3 | wx | pitch down | pitch up | 30 deg/s (`max_turn`) |
    | 4 | wy | yaw left | yaw right | 45 deg/s (`max_turn`) |
    | 5 | wz | roll left | roll right | 20 deg/s (`max_turn`) |

    An action of another shape, that is not floating point, NaN, or outside the box raises InputError.

    ## Observation space

    `Box(0, 255, (H, W, 3), uint8)`: the last frame of the step, RGB (nano: 128x128). Nothing else: where the camera
    and the goal are is in `info`, not in the observation.

    ## Info

    | key | when | value |
    | --- | --- | --- |
    | `pose` | always | (4, 4) float64, camera-to-world of the observed frame, relative to the start frame, metres |
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

    ## Arguments

    | argument | default | meaning |
    | --- | --- | --- |
    | `model` | "nano" | a shipped name, a folder, or a WorldModel; by name or folder, weights are read once a process |
    | `task` | "reach" | "reach", "none", or a Task |
    | `device` | "cpu" | torch device; leave out with a WorldModel, which has one |
    | `max_speed` | (0.6, 0.4, 1.0) | m/s along x, y, z at an action of 1; one number for all |
    | `max_turn` | radians of (30, 45, 20) | rad/s about x, y, z at an action of 1; one number for all |
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
        max_speed: float | Sequence[float] = MAX_SPEED,
        max_turn: float | Sequence[float] = MAX_TURN,
        starts: str | Path | None = None,
        info_frames: bool = False,
        render_mode: str | None = None,
    ) -> None:
        if render_mode not in (None, "rgb_array", "human"):
            raise InputError(f"render_mode: expected None, 'rgb_array' or 'human', got {render_mode!r}")
        self.task = make_task(task)
        self._limits = twist_limits(max_speed, max_turn)
        self._source: tuple[str | Path, str] | None = None  # where to read the weights again
        if isinstance(model, WorldModel):
            if device is not None and find_device(device) != model.device:
                raise InputError(f"device: expected the model's own, {model.device}, or none, got {device!r}")
            self.model = model
        else:
            self._source = model, device or "cpu"
            self.model = shared_model(*self._source)
        self._bank = find_bank(starts, checkpoint.find(model) if isinstance(model, str | Path) else None)
        self.info_frames = info_frames
        self.render_mode = render_mode
        config = self.model.config
        self.metadata = copy.deepcopy(type(self).metadata) | {"render_fps": config.fps / config.frames_per_step}
        self.action_space = gym.spaces.Box(-1, 1, (6,), np.float32)
        size = config.tokenizer.height, config.tokenizer.width
        self.observation_space = gym.spaces.Box(0, 255, (*size, 3), np.uint8)
        self._window = Window() if render_mode == "human" else None
        self._world: WorldState | None = None
        self._over = False

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A new world and its start frame as the model sees it. Raises InputError; see the class."""
        super().reset(seed=seed)
        world_seed = int(self.np_random.integers(2**31))
        start = choose_start(options, self._bank, self.np_random)
        if self.task.needs_goal and start.goal is None:
            raise InputError(f"goal: expected options['goal'] (3,) in metres for task {self.task}, got none")
        world, frames = self.model.reset([start.image], [start.prompt], start.intrinsics, [world_seed])
        self._world, self._frames, self._goal = world, frames[0].numpy(), start.goal
        self._pose, self._frame, self._over = np.eye(4), 0, False
        self._show()
        about = {
            "scene": start.name,
            "prompt": start.prompt,
            "intrinsics_source": start.intrinsics_source,
            "world_seed": world_seed,
        }
        return self._frames[-1].copy(), self._info(self.task.is_success(start.goal, self._pose)) | about

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One chunk of video under one twist. Raises InputError for a bad action, StateError out of order."""
        if self._world is None or self._over:
            state = "one that has ended" if self._over else "none"
            raise StateError(f"step: expected a running episode, got {state}; call reset first")
        twist = check_action(action) * self._limits
        config = self.model.config
        path = integrate_twist(self._pose, twist, config.frames_per_step, config.fps)  # (F, 4, 4)
        self._world, frames = self.model.step(self._world, path[None])
        verdict = self.task.judge(self._goal, self._pose, path[-1])
        self._frames, self._pose, self._over = frames[0].numpy(), path[-1], verdict.terminated
        moved = np.array([self._frame + 1, self._frame + len(path)])
        self._frame += len(path)
        self._show()
        info = self._info(verdict.is_success) | {"moved_frames": moved}
        if self.info_frames:
            info["frames"] = self._frames.copy()
        return self._frames[-1].copy(), verdict.reward, verdict.terminated, False, info

    def render(self) -> np.ndarray | None:
        """The observed frame (H, W, 3) uint8 in mode "rgb_array"; a window needs no call and returns None."""
        if self._world is None:
            raise StateError("render: expected a running episode, got none; call reset first")
        if self.render_mode is None:
            gym.logger.warn(
                "render: expected render_mode='rgb_array' or 'human' when the environment is made, got None"
            )
        return self._frames[-1].copy() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Close the window, if any; a second call does nothing."""
        if self._window is not None:
            self._window.close()

    @property
    def scenes(self) -> tuple[str, ...]:
        """Names of the start scenes in the bank, in the order of their indices."""
        return tuple(start.name for start in self._bank)

    def _info(self, is_success: bool) -> dict[str, Any]:
        """Fresh arrays: users keep what they are given."""
        if self._world is None:
            raise StateError("info: expected a running episode, got none")
        info = {
            "pose": self._pose.copy(),
            "intrinsics": self._world.intrinsics[0].cpu().numpy().copy(),
            "is_success": is_success,
        }
        return info if self._goal is None else info | {"goal": self._goal.copy()}

    def _show(self) -> None:
        if self._window is not None:
            self._window.show(self._frames, self.model.config.fps)

    def __getstate__(self) -> dict[str, Any]:
        without = {"model": None} if self._source else {}
        return self.__dict__ | without | {"_window": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._source:
            self.model = shared_model(*self._source)
        if self.render_mode == "human":
            self._window = Window()
