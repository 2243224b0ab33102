"""The ids of our environments. Entry points are strings, so registering loads neither torch nor pybullet."""

import gymnasium as gym

MAX_EPISODE_STEPS = 64  # of nano, 16 seconds; gym.make(..., max_episode_steps=) sets another
ENTRY_POINTS = {  # of a single environment, of many
    "SanaWM-v0": ("sanawm_env.env:SanaWMEnv", "sanawm_env.vector:SanaWMVectorEnv"),
    "SanaWMTwin-v0": ("sanawm_env.twin:SanaWMTwinEnv", "sanawm_env.twin:SanaWMTwinVectorEnv"),
}
TASK_IDS = {  # SanaWM-v0 with these arguments
    "SanaWM-Reach-v0": {"task": "reach"},
    "SanaWM-ImageGoal-v0": {"task": "image-goal", "obs": "pictures"},
    "SanaWM-Explore-v0": {"task": "explore"},
    "SanaWM-TrackPath-v0": {"task": "track-path", "obs": "dict"},
    "SanaWM-Free-v0": {"task": "none"},
}
IDS = (*ENTRY_POINTS, *TASK_IDS)


def register_environments() -> None:
    """Make `gym.make` know our ids; a second call changes nothing."""
    for name in IDS:
        single, vector = ENTRY_POINTS[name if name in ENTRY_POINTS else "SanaWM-v0"]
        if name not in gym.registry:
            gym.register(
                id=name,
                entry_point=single,
                vector_entry_point=vector,
                max_episode_steps=MAX_EPISODE_STEPS,
                kwargs=dict(TASK_IDS.get(name, {})),
            )
