"""PPO in one file: python examples/learners/ppo.py --steps 20000 --out runs/ppo

The actor sees pixels only; the critic, which is thrown away after training, is told where the goal lies.
"""

import csv
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
import tyro
from torch import nn
from torch.distributions import Normal

from sanawm_env.learners.pixel_policy import AXES, PixelPolicy, goal_ahead

GAMMA, LAMBDA, CLIP, EPOCHS, MINIBATCHES, RATE = 0.95, 0.95, 0.2, 6, 4, 1e-3


def main(
    model: str = "nano",
    starts: str | None = None,
    worlds: int = 16,
    steps: int = 20_000,
    horizon: int = 16,
    seed: int = 0,
    out: Path = Path("runs/ppo"),
) -> None:
    """Train on the reach task; write curve.csv and policy.pt. `horizon`: steps of each world between two updates."""
    torch.manual_seed(seed)
    given = {"num_envs": worlds, "starts": starts, "obs": "dict", "max_episode_steps": 32}
    env = gym.make_vec("sanawm_env:SanaWM-v0", model=model, **given)
    policy, critic = PixelPolicy(), nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 1))
    log_std = nn.Parameter(torch.full((len(AXES),), -0.7))  # of exploration, in units of the action
    optimizer = torch.optim.Adam(parameters := [*policy.parameters(), *critic.parameters(), log_std], RATE)
    out.mkdir(parents=True, exist_ok=True)
    curve = csv.writer((out / "curve.csv").open("w", buffering=1))
    curve.writerow(["steps", "return", "success", "length"])  # a row an episode
    obs, _ = env.reset(seed=seed)
    ended, returns, lengths = np.zeros(worlds, bool), np.zeros(worlds), np.zeros(worlds)
    for update in range(-(-steps // (worlds * horizon))):
        rows = []
        for t in range(horizon):
            with torch.no_grad():
                small = policy.shrink(torch.from_numpy(obs["pixels"]))
                goal = torch.from_numpy(goal_ahead(obs["agent_pos"], obs["goal"]))
                choice = Normal(policy.decide(small), log_std.exp())
                action, value = choice.sample(), critic(goal)[:, 0]
                obs, reward, terminated, truncated, info = env.step(policy.twist(action).numpy())
                after = critic(torch.from_numpy(goal_ahead(obs["agent_pos"], obs["goal"])))[:, 0]
            begun, ended = ended, terminated | truncated  # a world that had ended began anew: nothing to learn from
            delta = torch.from_numpy(reward).float() + GAMMA * after * torch.from_numpy(~terminated) - value
            goes_on, counts = torch.from_numpy(~ended), torch.from_numpy(~begun)
            rows.append((small, goal, action, choice.log_prob(action).sum(1), value, delta, goes_on, counts))
            returns, lengths = (returns + reward) * ~begun, (lengths + 1) * ~begun
            now = (update * horizon + t + 1) * worlds
            curve.writerows([now, returns[w], int(info["is_success"][w]), lengths[w]] for w in np.flatnonzero(ended))
        small, goal, action, logp, value, delta, goes_on, counts = (torch.stack(c) for c in zip(*rows, strict=True))
        advantage, later = torch.zeros_like(delta), torch.zeros(worlds)
        for t in reversed(range(horizon)):
            advantage[t] = later = delta[t] + GAMMA * LAMBDA * goes_on[t] * later
        columns = small, goal, action, logp, advantage, advantage + value
        small, goal, action, logp, advantage, target = (column[counts] for column in columns)
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        for part in (part for _ in range(EPOCHS) for part in torch.randperm(len(logp)).chunk(MINIBATCHES)):
            choice = Normal(policy.decide(small[part]), log_std.exp())
            ratio = (choice.log_prob(action[part]).sum(1) - logp[part]).exp()
            gain = torch.minimum(ratio * advantage[part], ratio.clamp(1 - CLIP, 1 + CLIP) * advantage[part]).mean()
            loss = (critic(goal[part])[:, 0] - target[part]).square().mean() - gain
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 0.5)
            optimizer.step()
        policy.save(out / "policy.pt")
    env.close()


if __name__ == "__main__":
    tyro.cli(main)
