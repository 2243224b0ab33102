"""A task of your own: turn once about yourself, without wandering off. python examples/own_task.py --steps 8"""

import gymnasium as gym
import numpy as np
import tyro

from sanawm_env.tasks import Episode, Verdict, notes_of


class TurnAround:
    """Pays degrees turned to the right; a full turn is a success, a metre's way from the start the end."""

    needs_goal = False

    def begin(self, episode: Episode) -> Verdict:
        return self.say(0.0, 0.0, episode)

    def judge(self, before: Episode, after: Episode) -> Verdict:
        x, _, z = before.pose[:3, :3].T @ after.pose[:3, 2]  # where the view went, as the camera saw it before
        turned = np.degrees(np.arctan2(x, z))
        return self.say(turned, notes_of(before, "turned")["turned"] + turned, after)

    def say(self, reward: float, total: float, episode: Episode) -> Verdict:
        done = bool(total >= 360)
        lost = bool(np.linalg.norm(episode.pose[:3, 3]) > 1)
        notes = {"turned": np.array(total)}  # all that a task may remember; it is part of snapshots
        return Verdict(reward=reward, terminated=done or lost, is_success=done, notes=notes)


def main(model: str = "nano", steps: int = 34) -> None:
    """Turn right at full speed, and print what the task says.

    Args:
        model: a shipped model by name, or a folder.
        steps: how many to take at most; 32 make a full turn with nano.
    """
    env = gym.make("sanawm_env:SanaWM-v0", model=model, task=TurnAround())
    env.reset(seed=0)
    for step in range(steps):
        _, reward, terminated, _, info = env.step(np.array([0, 0, 0, 0, 1, 0], np.float32))
        print(f"step {step}: {reward:.2f} degrees, success: {info['is_success']}")
        if terminated:
            break
    env.close()


if __name__ == "__main__":
    tyro.cli(main)
