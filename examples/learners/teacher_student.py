"""A student that sees pixels, a teacher that is told more: python examples/learners/teacher_student.py --steps 4000

The teacher learns by TD3 (arXiv 1802.09477) from where the goal lies, which takes few frames; the student learns from
pixels what the teacher would do wherever the student came (arXiv 1912.12294, 1011.0686). Regression on all frames so
far does not swing as a gradient through a critic does. The average of the student's past acts, and is saved.
"""

import copy
import csv
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
import tyro
from torch import Tensor, nn

from sanawm_env.learners.pixel_policy import AXES, PixelPolicy, goal_ahead

GAMMA, TAU, BATCH, FIRST, UPDATES = 0.95, 0.01, 128, 512, 16  # FIRST: transitions at random, to begin with
NOISE, CALM = 0.3, 0.02  # CALM: what moving costs the teacher; where it moves for little, no student can follow
MIRROR, MIRROR_GOAL = torch.tensor([1.0, 1, -1]), torch.tensor([-1.0, 1, 1])  # a room in a mirror is a room, too


def network(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, outputs))


def loss(learned: nn.ModuleList, slow: nn.ModuleList, small, goal, action, reward, goes_on, after) -> Tensor:
    """Of critics, teacher and student in one; no gradient of one reaches another."""
    (student, teacher, *critics), (_, slow_teacher, *slow_critics) = learned, slow
    follow = (slow_teacher(after) + (0.2 * torch.randn_like(action)).clamp(-0.5, 0.5)).clamp(-1, 1)
    target = reward + GAMMA * goes_on * torch.cat([q(torch.cat([after, follow], 1)) for q in slow_critics], 1).amin(1)
    wrong = sum((q(torch.cat([goal, action], 1))[:, 0] - target).square().mean() for q in critics)
    worth = slow_critics[0](torch.cat([goal, best := teacher(goal)], 1)).mean() - CALM * best.square().sum(1).mean()
    return wrong - worth + (student.decide(small) - slow_teacher(goal)).square().mean()


def main(
    model: str = "nano",
    starts: str | None = None,
    worlds: int = 16,
    steps: int = 4000,
    seed: int = 0,
    out: Path = Path("runs/student"),
) -> None:
    """Train on the reach task; write curve.csv, a row an episode, and, eight times, the policy."""
    torch.manual_seed(seed)
    given = {"num_envs": worlds, "starts": starts, "obs": "dict", "max_episode_steps": 24}
    env = gym.make_vec("sanawm_env:SanaWM-v0", model=model, **given)
    learned = nn.ModuleList([PixelPolicy(), nn.Sequential(network(3, 3), nn.Tanh()), network(6, 1), network(6, 1)])
    slow, optimizer = copy.deepcopy(learned).requires_grad_(False), torch.optim.Adam(learned.parameters(), 1e-3)
    curve = csv.writer((out.mkdir(parents=True, exist_ok=True) or out / "curve.csv").open("w", buffering=1))
    curve.writerow(["steps", "return", "success"])
    obs, _ = env.reset(seed=seed * worlds)  # a seed a world: no two runs share one
    memory, ended, returns, rounds = [], np.zeros(worlds, bool), np.zeros(worlds), -(-steps // worlds)
    for i in range(rounds):
        small, goal = slow[0].shrink(torch.from_numpy(obs["pixels"])), goal_ahead(obs["agent_pos"], obs["goal"])
        noisy = (slow[0].decide(small) + NOISE * torch.randn(worlds, len(AXES))).clamp(-1, 1)
        action = noisy if i * worlds >= FIRST else torch.rand_like(noisy) * 2 - 1
        obs, reward, terminated, truncated, _ = env.step(slow[0].twist(action).numpy())
        begun, ended = ended, terminated | truncated  # a world that had ended began anew: nothing to learn from
        parts = goal, action, reward, ~terminated, goal_ahead(obs["agent_pos"], obs["goal"])
        goal, action, *told, after = (torch.as_tensor(part[~begun], dtype=torch.float32) for part in parts)
        memory += [(small := small[~begun], goal, action, *told, after)]
        memory += [(small.flip(3), goal * MIRROR_GOAL, action * MIRROR, *told, after * MIRROR_GOAL)]
        columns = [torch.cat(column) for column in zip(*memory, strict=True)]
        returns = (returns + reward) * ~begun
        curve.writerows([(i + 1) * worlds, returns[w], int(terminated[w])] for w in np.flatnonzero(ended))
        for _ in range(UPDATES if i * worlds > BATCH else 0):
            drawn = torch.randint(len(columns[0]), (BATCH,))
            optimizer.zero_grad(), loss(learned, slow, *(c[drawn] for c in columns)).backward(), optimizer.step()
            torch._foreach_lerp_([*slow.parameters()], [new.detach() for new in learned.parameters()], TAU)
        if (i + 1) * 8 // rounds > i * 8 // rounds:
            slow[0].save(out / f"policy_{(i + 1) * worlds:05d}.pt")
    env.close()


if __name__ == "__main__":
    tyro.cli(main)
