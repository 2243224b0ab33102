"""An actor that sees pixels, a critic that is told more: python examples/learners/actor_critic.py --steps 8000

TD3 with an asymmetric critic (Pinto et al. 2017, arXiv 1710.06542). Frames are dear, so they are kept and used again;
the critic learns from where the goal lies, which takes few of them, and is thrown away after training.
"""

import copy
import csv
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
import tyro
from torch import nn

from sanawm_env.learners.pixel_policy import AXES, PixelPolicy, goal_ahead

GAMMA, TAU, NOISE, BATCH, FIRST, UPDATES = 0.95, 0.02, 0.3, 128, 512, 3  # FIRST: transitions at random, to begin with


def make_critic() -> nn.Module:
    return nn.Sequential(nn.Linear(3 + len(AXES), 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 1))


def main(
    model: str = "nano",
    starts: str | None = None,
    worlds: int = 16,
    steps: int = 8000,
    limit: int = 32,
    seed: int = 0,
    out: Path = Path("runs/actor_critic"),
) -> None:
    """Train on the reach task; write curve.csv and, ten times, the policy. `limit`: steps of an episode."""
    torch.manual_seed(seed)
    given = {"num_envs": worlds, "starts": starts, "obs": "dict", "max_episode_steps": limit}
    env = gym.make_vec("sanawm_env:SanaWM-v0", model=model, **given)
    actor, critics = PixelPolicy(), nn.ModuleList([make_critic(), make_critic()])
    slow = copy.deepcopy(nn.ModuleList([actor, critics]))
    to_actor, to_critics = torch.optim.Adam(actor.parameters(), 5e-4), torch.optim.Adam(critics.parameters(), 1e-3)
    curve = csv.writer((out.mkdir(parents=True, exist_ok=True) or out / "curve.csv").open("w", buffering=1))
    curve.writerow(["steps", "seconds", "return", "success", "length"])  # a row an episode
    obs, _ = env.reset(seed=seed)
    memory, ended, began = [], np.zeros(worlds, bool), time.monotonic()
    returns, lengths = np.zeros(worlds), np.zeros(worlds)
    for i in range(rounds := -(-steps // worlds)):
        with torch.no_grad():
            small, goal = actor.shrink(torch.from_numpy(obs["pixels"])), goal_ahead(obs["agent_pos"], obs["goal"])
            noisy = (actor.decide(small) + NOISE * torch.randn(worlds, len(AXES))).clamp(-1, 1)
            action = noisy if i * worlds >= FIRST else torch.rand_like(noisy) * 2 - 1
            obs, reward, terminated, truncated, info = env.step(actor.twist(action).numpy())
            after, goal_after = actor.shrink(torch.from_numpy(obs["pixels"])), goal_ahead(obs["agent_pos"], obs["goal"])
        begun, ended = ended, terminated | truncated  # a world that had ended began anew: nothing to learn from
        row = small, goal, action, reward, ~terminated, after, goal_after
        memory += [[torch.as_tensor(part[w]) for part in row] for w in np.flatnonzero(~begun)]
        returns, lengths = (returns + reward) * ~begun, (lengths + 1) * ~begun
        now = (i + 1) * worlds, round(time.monotonic() - began)
        curve.writerows([*now, returns[w], int(info["is_success"][w]), lengths[w]] for w in np.flatnonzero(ended))
        for _ in range(UPDATES if len(memory) >= FIRST else 0):
            drawn = [memory[k] for k in torch.randint(len(memory), (BATCH,)).tolist()]
            small, goal, action, reward, goes_on, after, goal_after = (torch.stack(c) for c in zip(*drawn, strict=True))
            with torch.no_grad():
                follow = (slow[0].decide(after) + (0.2 * torch.randn_like(action)).clamp(-0.5, 0.5)).clamp(-1, 1)
                worth = torch.stack([q(torch.cat([goal_after.float(), follow], 1)) for q in slow[1]]).amin(0)[:, 0]
                target = reward.float() + GAMMA * goes_on * worth
            loss = sum((q(torch.cat([goal.float(), action], 1))[:, 0] - target).square().mean() for q in critics)
            to_critics.zero_grad(), loss.backward(), to_critics.step()
            loss = -critics[0](torch.cat([goal.float(), actor.decide(small)], 1)).mean()
            to_actor.zero_grad(), loss.backward(), to_actor.step()
            for old, new in zip(slow.parameters(), [*actor.parameters(), *critics.parameters()], strict=True):
                old.data.lerp_(new.data, TAU)
        if (i + 1) % max(1, rounds // 10) == 0:
            actor.save(out / f"policy_{now[0]:05d}.pt")
    env.close()


if __name__ == "__main__":
    tyro.cli(main)
