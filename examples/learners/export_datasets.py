"""Record episodes, write them for LeRobot and for Minari: python examples/learners/export_datasets.py --episodes 2"""

from pathlib import Path

import gymnasium as gym
import tyro

import sanawm_env  # noqa: F401  (registers the environments)
from sanawm_env.learners.episodes import record_episodes
from sanawm_env.learners.lerobot_export import export_lerobot
from sanawm_env.learners.minari_export import export_minari


def main(
    model: str = "nano",
    episodes: int = 2,
    steps: int = 16,
    seed: int = 0,
    minari: str | None = None,
    out: Path = Path("runs/reach_lerobot"),
) -> None:
    """Play at random.

    Args:
        model: a shipped model by name, or a folder.
        episodes: how many.
        steps: at which an episode ends at the latest.
        seed: of the first episode and of the actions.
        minari: also write a Minari dataset of this name, such as sanawm/reach-v0.
        out: folder of the LeRobot dataset.
    """
    env = gym.make("SanaWM-v0", model=model, obs="dict", max_episode_steps=steps)
    env.action_space.seed(seed)
    played = record_episodes(env, lambda observation: env.action_space.sample(), episodes, seed)
    export_lerobot(played, out, fps=env.metadata["render_fps"], task="reach")
    print(f"{sum(len(episode.actions) for episode in played)} steps in {len(played)} episodes: {out}")
    if minari:
        dataset = export_minari(played, env, minari, "random", "Episodes of a random policy in SanaWM-v0.")
        print(f"Minari: {dataset.id}, {dataset.total_steps} steps")
    env.close()


if __name__ == "__main__":
    tyro.cli(main)
