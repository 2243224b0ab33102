"""Score a policy in the world model and in the twin: python examples/learners/score.py --policy runs/policy.pt

Every scene of the bank once, from the same starts, beside an agent that acts at random and one that goes straight
ahead: goals are in view, so that much succeeds without looking.
"""

import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import tyro

import sanawm_env  # noqa: F401  (registers the environments)
from sanawm_env.learners.pixel_policy import act, load_policy

AHEAD = np.array([0, 0, 1, 0, 0, 0], np.float32)


def play(env: gym.vector.VectorEnv, scenes: list[int], choose, seed: int) -> list[tuple[float, bool, int]]:
    """Return, success and length of one episode in each scene."""
    found, worlds = [], env.num_envs
    for first in range(0, len(scenes), worlds):
        chosen = [{"scene": scenes[min(first + i, len(scenes) - 1)]} for i in range(worlds)]
        obs, _ = env.reset(seed=seed + first, options={"per_world": chosen})
        returns, lengths = np.zeros((2, worlds))
        success, going = np.zeros(worlds, bool), np.ones(worlds, bool)
        while going.any():
            obs, reward, terminated, truncated, info = env.step(choose(obs))
            returns, lengths = returns + reward * going, lengths + going
            success |= going & info["is_success"]
            going &= ~(terminated | truncated)
        found += list(zip(returns.tolist(), success.tolist(), lengths.tolist(), strict=True))
    return found[: len(scenes)]


def main(
    policy: Path | None = None,
    model: str = "nano",
    ids: tuple[str, ...] = ("SanaWM-v0", "SanaWMTwin-v0"),
    worlds: int = 8,
    scenes: int = 24,
    steps: int = 32,
    seed: int = 0,
    out: Path = Path("runs/score.json"),
) -> None:
    """Print a table and write every episode.

    Args:
        policy: a TorchScript file as `actor_critic.py` writes it.
        model: a shipped model by name, or a folder.
        ids: of the environments.
        worlds: that step together.
        scenes: how many of the bank.
        steps: at which an episode ends at the latest.
        seed: of the worlds' noise and of the random agent.
        out: return, success and length of each episode.
    """
    rng, table = np.random.default_rng(seed), {}
    agents = {
        "random": lambda obs: rng.uniform(-1, 1, (worlds, 6)).astype(np.float32),
        "straight ahead": lambda obs: np.tile(AHEAD, (worlds, 1)),
    }
    if policy:
        learned = load_policy(policy)
        agents["policy"] = lambda obs: act(learned, obs)
    for name in ids:
        env = gym.make_vec(name, num_envs=worlds, model=model, max_episode_steps=steps)
        for agent, choose in agents.items():
            table[f"{name} {agent}"] = found = play(env, list(range(scenes)), choose, seed)
            score, rate, length = np.mean(found, axis=0)
            print(f"{name}, {agent}: return {score:+.2f}, success {rate:.0%}, {length:.1f} steps", flush=True)
        env.close()
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(table))


if __name__ == "__main__":
    tyro.cli(main)
