"""Plan by trying futures in the world model, beside acting at random: python examples/plan.py --episodes 20"""

import gymnasium as gym
import numpy as np
import tyro

from sanawm_env.snapshot import EnvState


def imagine(worlds: gym.vector.VectorEnv, state: EnvState, twists: np.ndarray, horizon: int) -> np.ndarray:
    """What each twist (K, 6), held for `horizon` steps, earns in a fork of the world `state`: (K,)."""
    worlds.unwrapped.set_state(state.fork(len(twists)))  # the same noise in each: futures are compared in pairs
    earned, running = np.zeros(len(twists)), np.ones(len(twists), bool)
    for _ in range(horizon):
        _, rewards, terminated, _, _ = worlds.step(twists)
        earned += rewards * running
        running &= ~terminated
        if not running.any():
            break
    return earned


def main(
    model: str = "nano",
    episodes: int = 20,
    steps: int = 16,
    candidates: int = 8,
    horizon: int = 4,
    policy: str = "plan",
    seed: int = 0,
) -> None:
    """Reach the goal by random-shooting model-predictive control; all futures of a step are one batch.

    Args:
        model: a shipped model by name, or a folder.
        episodes: how many; number i has seed `seed` + i, whatever the policy.
        steps: an episode's longest.
        candidates: twists tried at each step, each held for `horizon` steps; the best is flown for one.
        horizon: steps of each future.
        policy: plan, or random.
        seed: of scenes, noise and candidates.
    """
    env = gym.make("sanawm_env:SanaWM-v0", model=model, obs="latent", max_episode_steps=steps)  # nothing is decoded
    worlds = gym.make_vec("SanaWM-v0", candidates, model=model, obs="latent", max_episode_steps=-1)
    returns, reached = [], []
    for episode in range(episodes):
        draws = np.random.default_rng(seed + episode)
        env.reset(seed=seed + episode)
        earned, over = 0.0, False
        while not over:
            twists = draws.uniform(-1, 1, (candidates, 6)).astype(np.float32)
            best = 0
            if policy == "plan":
                best = int(imagine(worlds, env.unwrapped.get_state(), twists, horizon).argmax())
            _, reward, terminated, truncated, info = env.step(twists[best])
            earned, over = earned + reward, terminated or truncated
        returns.append(earned)
        reached.append(info["is_success"])
        print(f"episode {episode}: return {earned:+.2f}, {'reached' if reached[-1] else 'not reached'}")
    error = np.std(returns) / len(returns) ** 0.5
    print(f"{policy}: return {np.mean(returns):+.2f} +- {error:.2f} (s.e.), {sum(reached)} of {episodes} reached")


if __name__ == "__main__":
    tyro.cli(main)
