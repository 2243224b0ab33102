"""Whole episodes in memory, recorded from any of our environments: what the exporters write.

Legend: T steps of an episode, which has T + 1 observations.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from world_model.errors import InputError

Policy = Callable[[Any], Any]  # an observation -> an action


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One episode as it was played."""

    observations: tuple[Any, ...]  # T + 1 elements of the observation space
    actions: tuple[Any, ...]  # T elements of the action space
    rewards: np.ndarray  # (T,) float64
    terminated: np.ndarray  # (T,) bool
    truncated: np.ndarray  # (T,) bool
    success: np.ndarray  # (T + 1,) bool, of the observed frame
    poses: np.ndarray  # (T + 1, 4, 4) float64, camera-to-world, metres, OpenCV axes
    intrinsics: np.ndarray  # (T + 1, 4) float32, pixels of the observed frame
    scene: str
    prompt: str
    world_seed: int
    seed: int  # that the environment was reset with


def record_episodes(env: gym.Env, policy: Policy, count: int, seed: int = 0) -> tuple[Recorded, ...]:
    """Play `count` episodes, of the seeds `seed`, `seed` + 1, ... The environment must limit their time.

    Raises InputError for a count below 1.
    """
    if count < 1:
        raise InputError(f"count: expected at least 1 episode, got {count}")
    return tuple(record_episode(env, policy, seed + i) for i in range(count))


def record_episode(env: gym.Env, policy: Policy, seed: int) -> Recorded:
    """Play one episode from `reset(seed=seed)` to its end."""
    observation, start = env.reset(seed=seed)
    observations, infos, actions, results = [observation], [start], [], []
    while not results or not (results[-1][1] or results[-1][2]):
        actions.append(policy(observation))
        observation, reward, terminated, truncated, info = env.step(actions[-1])
        observations.append(observation)
        infos.append(info)
        results.append((reward, terminated, truncated))
    rewards, terminated, truncated = (np.array(column) for column in zip(*results, strict=True))
    return Recorded(
        observations=tuple(observations),
        actions=tuple(actions),
        rewards=rewards.astype(np.float64),
        terminated=terminated.astype(bool),
        truncated=truncated.astype(bool),
        success=np.array([info["is_success"] for info in infos], bool),
        poses=np.stack([info["pose"] for info in infos]),
        intrinsics=np.stack([info["intrinsics"] for info in infos]),
        scene=start["scene"],
        prompt=start["prompt"],
        world_seed=int(start["world_seed"]),
        seed=seed,
    )
