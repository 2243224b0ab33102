"""Stable-Baselines3's PPO on eight worlds of one forward: python examples/learners/sb3_ppo.py --steps 2000"""

from pathlib import Path

import gymnasium as gym
import tyro
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecMonitor

import sanawm_env  # noqa: F401  (registers the environments)
from sanawm_env.learners.sb3 import SB3VecEnv


def main(
    model: str = "nano", worlds: int = 8, steps: int = 2000, horizon: int = 32, out: Path = Path("runs/sb3_ppo.zip")
) -> None:
    """Train on the reach task, from pixels; write the policy as SB3 does.

    Args:
        model: a shipped model by name, or a folder.
        worlds: that step together.
        steps: of all worlds in sum.
        horizon: steps of each world between two updates.
        out: the policy.
    """
    env = gym.make_vec("SanaWM-v0", num_envs=worlds, model=model, max_episode_steps=32, autoreset_mode="SameStep")
    monitored = VecMonitor(SB3VecEnv(env))
    learner = PPO("CnnPolicy", monitored, n_steps=horizon, batch_size=worlds * horizon // 4 or 1, gamma=0.95, seed=0)
    learner.learn(steps)
    learner.save(out)
    returns = [episode["r"] for episode in learner.ep_info_buffer or ()]
    mean = f"{sum(returns) / len(returns):+.2f}" if returns else "none"
    print(f"{learner.num_timesteps} steps, {len(returns)} episodes, mean return {mean}: {out}")


if __name__ == "__main__":
    tyro.cli(main)
