"""Recorded episodes as a Minari dataset, without loss: what is read back equals what was seen, bit for bit.

Minari keeps pictures as JPEG unless told otherwise; here it is told. Needs the extra `minari`.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from sanawm_env.learners.episodes import Recorded
from world_model.errors import InputError
from world_model.train.data.source import optional_module


def export_minari(episodes: Sequence[Recorded], env: gym.Env, dataset_id: str, algorithm: str, description: str) -> Any:
    """Write `episodes` of `env` as the dataset `dataset_id`, such as "sanawm/reach-v0"; returns it as Minari's own.

    Minari chooses the folder (its variable MINARI_DATASETS_PATH) and refuses one that is there already. Infos hold
    `pose` (T + 1, 4, 4) and `is_success` (T + 1,). Raises BackendError without Minari, InputError for no episodes.
    """
    minari = optional_module("minari", "minari")
    buffers = optional_module("minari.data_collector", "minari")
    if not episodes:
        raise InputError("episodes: expected at least one, got none")
    return minari.create_dataset_from_buffers(
        dataset_id,
        [
            buffers.EpisodeBuffer(
                id=i,
                seed=episode.seed,
                options={"scene": episode.scene},
                observations=stack(env.observation_space, episode.observations),
                actions=stack(env.action_space, episode.actions),
                rewards=episode.rewards.tolist(),
                terminations=episode.terminated.tolist(),
                truncations=episode.truncated.tolist(),
                infos={"pose": episode.poses, "is_success": episode.success.tolist()},
            )
            for i, episode in enumerate(episodes)
        ],
        env=env,
        observation_space=env.observation_space,
        action_space=env.action_space,
        algorithm_name=algorithm,
        description=description,
        data_format="arrow",
        jpeg_encoding=False,
    )


def stack(space: gym.Space, elements: Sequence[Any]) -> Any:
    """Elements of a space as one array, or of a flat Dict as one array a key."""
    if isinstance(space, gym.spaces.Dict):
        return {key: np.stack([element[key] for element in elements]) for key in space.spaces}
    return np.stack([np.asarray(element) for element in elements])
