"""The ids of our environments. Entry points are strings, so registering loads neither torch nor pybullet."""

import gymnasium as gym

MAX_EPISODE_STEPS = 64  # of nano, 16 seconds; gym.make(..., max_episode_steps=) sets another
IDS = ("SanaWM-v0",)


def register_environments() -> None:
    """Make `gym.make("SanaWM-v0")` known; a second call changes nothing."""
    for name in IDS:
        if name not in gym.registry:
            gym.register(
                id=name,
                entry_point="sanawm_env.env:SanaWMEnv",
                vector_entry_point="sanawm_env.vector:SanaWMVectorEnv",
                max_episode_steps=MAX_EPISODE_STEPS,
            )
