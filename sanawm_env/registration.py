"""The ids of our environments. Entry points are strings, so registering loads neither torch nor pybullet."""

import gymnasium as gym

MAX_EPISODE_STEPS = 64  # of nano, 16 seconds; gym.make(..., max_episode_steps=) sets another
ENTRY_POINTS = {  # of a single environment, of many
    "SanaWM-v0": ("sanawm_env.env:SanaWMEnv", "sanawm_env.vector:SanaWMVectorEnv"),
    "SanaWMTwin-v0": ("sanawm_env.twin:SanaWMTwinEnv", "sanawm_env.twin:SanaWMTwinVectorEnv"),
}
IDS = tuple(ENTRY_POINTS)


def register_environments() -> None:
    """Make `gym.make` know our ids; a second call changes nothing."""
    for name, (single, vector) in ENTRY_POINTS.items():
        if name not in gym.registry:
            gym.register(
                id=name,
                entry_point=single,
                vector_entry_point=vector,
                max_episode_steps=MAX_EPISODE_STEPS,
            )
