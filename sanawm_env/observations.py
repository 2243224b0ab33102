"""Observations: what an agent gets to see of an episode. One small class each; all return fresh arrays."""

from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from sanawm_env.episode import Episode
from sanawm_env.tasks import Shown, Task
from world_model.config import WorldConfig
from world_model.errors import InputError, StateError

UNBOUNDED = float(np.finfo(np.float32).max)  # Gymnasium's checker warns of infinite bounds


class View(Protocol):
    """What the environment asks of an observation. decodes: whether it needs pixels."""

    decodes: bool

    def space(self, config: WorldConfig, with_goal: bool) -> gym.Space: ...

    def observe(self, episode: Episode, space: gym.Space) -> Any:
        """An element of `space`, which is this view's. Raises StateError for an episode without pixels."""
        ...


@dataclass(frozen=True)
class Rgb:
    """Box(H, W, 3) uint8: the last frame."""

    decodes = True

    def space(self, config: WorldConfig, with_goal: bool) -> gym.Space:
        return gym.spaces.Box(0, 255, (config.tokenizer.height, config.tokenizer.width, 3), np.uint8)

    def observe(self, episode: Episode, space: gym.Space) -> np.ndarray:
        return last_frame(episode)


@dataclass(frozen=True)
class Float:
    """Box(H, W, 3) float32 in [0, 1]: the last frame."""

    decodes = True

    def space(self, config: WorldConfig, with_goal: bool) -> gym.Space:
        return gym.spaces.Box(0, 1, (config.tokenizer.height, config.tokenizer.width, 3), np.float32)

    def observe(self, episode: Episode, space: gym.Space) -> np.ndarray:
        return last_frame(episode).astype(np.float32) / 255


@dataclass(frozen=True)
class Flat:
    """Dict of the last frame and of what a robot may know beside it; where camera and goal are is privileged.

    pixels (H, W, 3) uint8; agent_pos (9,) float32: position, then the first two columns of the rotation, which unlike
    angles and quaternions never jump; intrinsics (4,) float32 in pixels; goal (3,) float32 if the task has one.
    Metres, start camera's axes.
    """

    decodes = True

    def space(self, config: WorldConfig, with_goal: bool) -> gym.Space:
        height, width = config.tokenizer.height, config.tokenizer.width
        reach = np.array([UNBOUNDED] * 3 + [1.0] * 6, np.float32)
        spaces = {
            "pixels": gym.spaces.Box(0, 255, (height, width, 3), np.uint8),
            "agent_pos": gym.spaces.Box(-reach, reach, (9,), np.float32),
            "intrinsics": gym.spaces.Box(-UNBOUNDED, UNBOUNDED, (4,), np.float32),
        }
        if with_goal:
            spaces["goal"] = gym.spaces.Box(-UNBOUNDED, UNBOUNDED, (3,), np.float32)
        return gym.spaces.Dict(spaces)

    def observe(self, episode: Episode, space: gym.Space) -> dict[str, np.ndarray]:
        axes = np.clip(episode.pose[:3, :2].T, -1, 1)  # rounding may pass 1
        seen = {
            "pixels": last_frame(episode),
            "agent_pos": np.concatenate([episode.pose[:3, 3], axes.ravel()]).astype(np.float32),
            "intrinsics": episode.intrinsics.copy(),
        }
        if isinstance(space, gym.spaces.Dict) and "goal" in space.spaces:
            if episode.goal is None:
                raise InputError("goal: expected one (3,), which this observation shows, got none")
            seen["goal"] = episode.goal.astype(np.float32)
        return seen


@dataclass(frozen=True)
class Latent:
    """Box(C, Y, X) float32: the world model's own last latent. Nothing is decoded, unless somebody looks."""

    decodes = False

    def space(self, config: WorldConfig, with_goal: bool) -> gym.Space:
        shape = config.tokenizer.latent_channels, *config.tokenizer.grid
        return gym.spaces.Box(-UNBOUNDED, UNBOUNDED, shape, np.float32)

    def observe(self, episode: Episode, space: gym.Space) -> np.ndarray:
        return episode.latent.copy()


@dataclass(frozen=True)
class Pictures:
    """Dict of pictures: the last frame, `pixels` (H, W, 3) uint8, and those that the task shows. Nothing privileged."""

    decodes = True

    def space(self, config: WorldConfig, with_goal: bool) -> gym.Space:
        return gym.spaces.Dict({"pixels": Rgb().space(config, with_goal)})

    def observe(self, episode: Episode, space: gym.Space) -> dict[str, np.ndarray]:
        return {"pixels": last_frame(episode)}


VIEWS: dict[str, type[Rgb] | type[Float] | type[Flat] | type[Latent] | type[Pictures]] = {
    "rgb": Rgb,
    "float": Float,
    "dict": Flat,
    "latent": Latent,
    "pictures": Pictures,
}


def make_view(obs: str) -> View:
    """An observation by name. Raises InputError."""
    if obs not in VIEWS:
        raise InputError(f"obs: expected one of {sorted(VIEWS)}, got {obs!r}")
    return VIEWS[obs]()


def with_task(space: gym.Space, task: Task, config: WorldConfig) -> gym.Space:
    """An observation space with what the task adds: to a Dict its pictures, and all if it tells `agent_pos` already.

    Raises InputError for a name that is taken.
    """
    if not isinstance(space, gym.spaces.Dict) or not isinstance(task, Shown):
        return space
    added = task.spaces(config)
    taken = sorted(set(added) & set(space.spaces))
    if taken:
        raise InputError(f"task {task}: expected names that the observation does not have, got {taken}")
    if "agent_pos" not in space.spaces:
        added = {name: one for name, one in added.items() if one.dtype == np.uint8 and len(one.shape or ()) == 3}
    return gym.spaces.Dict({**space.spaces, **added})


def show_task(seen: Any, space: gym.Space, task: Task, episode: Episode) -> Any:
    """An observation with what the task adds. Raises StateError for another task than the space was made for."""
    if not isinstance(space, gym.spaces.Dict):
        return seen
    missing = set(space.spaces) - set(seen)
    shown = task.show(episode) if missing and isinstance(task, Shown) else {}
    if not missing <= set(shown):
        raise StateError(
            f"expected a task that shows {sorted(missing)}, got {task}; make the environment with that task"
        )
    return {**seen, **{name: shown[name] for name in space.spaces if name in missing}}


def last_frame(episode: Episode) -> np.ndarray:
    """The frame that the episode is at, (H, W, 3) uint8, a copy."""
    if episode.frames is None:
        raise StateError("expected an episode with decoded frames, got one that was flown in latent space only")
    return episode.frames[-1].copy()
