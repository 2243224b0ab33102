"""Episodes of many policies in one vector environment: who starts where, and how it ended.

Worlds are slots: slot i plays jobs i, i + N, i + 2N, ... one after the other, each with its own policy, so that the
batch stays full and an episode's arithmetic does not depend on how long others last. A slot that has none left plays
any, and nobody counts it.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

from sanawm_env.evaluate.policies import Actor, Policy
from world_model.errors import InputError

SEEDS_APART = 100_000  # episodes of one seed never meet those of the next


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where an episode starts: the name of a scene, and the seed of the world's noise and of the policy."""

    scene: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class Job:
    """One episode to play."""

    policy: str
    start: Start


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an episode ended. total: its return; distance: metres from the goal at its end; goal (3,) as it was told."""

    policy: str
    scene: str
    seed: int
    success: bool
    total: float
    steps: int
    distance: float
    goal: tuple[float, float, float]


@dataclass
class Slot:
    """A world and what it plays just now: its jobs in turn, and when they are done the spare one, for nothing."""

    jobs: list[Job]
    spare: Job
    done: int = 0  # jobs that are finished
    actor: Actor | None = None
    info: dict[str, Any] = field(default_factory=dict)
    total: float = 0.0
    steps: int = 0

    @property
    def is_idle(self) -> bool:
        return self.done == len(self.jobs)

    @property
    def job(self) -> Job:
        return self.spare if self.is_idle else self.jobs[self.done]


def draw_starts(scenes: Sequence[str], episodes: int, seeds: Sequence[int]) -> list[Start]:
    """`episodes` starts a seed: all scenes in an order of the seed's, again and again."""
    if episodes < 1 or not seeds or not scenes:
        raise InputError(
            f"starts: expected scenes, seeds and episodes >= 1, got {len(scenes)}, {list(seeds)} and {episodes}"
        )
    starts = []
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(len(scenes))
        starts += [Start(scene=scenes[order[k % len(scenes)]], seed=seed * SEEDS_APART + k) for k in range(episodes)]
    return starts


def deal(jobs: Sequence[Job], count: int, done: Set[tuple[str, int]] = frozenset()) -> list[list[Job]]:
    """What each of `count` slots plays, without the jobs that are done, given as (policy, seed).

    A job's slot does not depend on what is done: an evaluation that was stopped goes on as if it had not been.
    """
    return [[job for job in jobs[i::count] if (job.policy, job.start.seed) not in done] for i in range(count)]


def play(
    worlds: gym.vector.VectorEnv, hands: Sequence[Sequence[Job]], policies: Mapping[str, Policy]
) -> Iterator[Outcome]:
    """Play the jobs of every slot; outcomes come as episodes end.

    `worlds` must be in autoreset mode "Disabled", with observation "rgb" and control "twist". Raises InputError.
    """
    if len(hands) != worlds.num_envs:
        raise InputError(f"play: expected jobs for {worlds.num_envs} worlds, got {len(hands)}")
    spare = next((hand[0] for hand in hands if hand), None)
    if spare is None:
        return
    slots = [Slot(jobs=list(hand), spare=spare) for hand in hands]
    fresh = list(range(len(slots)))
    while any(not slot.is_idle for slot in slots):
        seen = begin(worlds, slots, fresh, policies)
        fresh = []
        while not fresh:
            actions = np.stack([act(slot, policies, seen[i]) for i, slot in enumerate(slots)])
            seen, rewards, terminated, truncated, told = worlds.step(actions)
            for i, slot in enumerate(slots):
                slot.info = slot.info | world_info(told, i)
                slot.total, slot.steps = slot.total + float(rewards[i]), slot.steps + 1
            fresh = np.flatnonzero(terminated | truncated).tolist()
        for slot in (slots[i] for i in fresh):
            if not slot.is_idle:
                yield outcome(slot)
                slot.done += 1


def begin(
    worlds: gym.vector.VectorEnv, slots: Sequence[Slot], fresh: Sequence[int], policies: Mapping[str, Policy]
) -> np.ndarray:
    """Start the jobs of some slots; returns the observations of all."""
    mask = np.zeros(len(slots), np.bool_)
    mask[list(fresh)] = True
    seeds = [slot.job.start.seed if mask[i] else None for i, slot in enumerate(slots)]
    options = [{"scene": slot.job.start.scene} for slot in slots]
    seen, told = worlds.reset(seed=seeds, options={"reset_mask": mask, "per_world": options})
    for i in fresh:
        slot = slots[i]
        slot.actor = policies[slot.job.policy].begin(slot.job.start.seed)
        slot.total, slot.steps, slot.info = 0.0, 0, world_info(told, i)
    return seen


def act(slot: Slot, policies: Mapping[str, Policy], seen: np.ndarray) -> np.ndarray:
    """The action of a slot's policy, clipped to [-1, 1]. Raises InputError, naming the policy, for what is none."""
    if slot.actor is None:
        raise InputError("act: expected an episode that has begun, got none")
    given = slot.actor(seen if policies[slot.job.policy].reads == "pixels" else slot.info)
    action = np.asarray(given, np.float32)
    if action.shape != (6,) or not np.isfinite(action).all():
        raise InputError(f"policy {slot.job.policy!r}: expected a finite action (6,), got {given!r}")
    return np.clip(action, -1, 1)


def world_info(told: Mapping[str, Any], index: int) -> dict[str, Any]:
    """What a vector environment's info says of one world."""
    return {
        name: value[index]
        for name, value in told.items()
        if not name.startswith("_") and (f"_{name}" not in told or told[f"_{name}"][index])
    }


def outcome(slot: Slot) -> Outcome:
    """How the episode of a slot has ended. Raises InputError for an environment that tells of no goal."""
    info = slot.info
    if "goal" not in info:
        raise InputError(f"info: expected 'goal', which the reach task has, got {sorted(info)}")
    goal = np.asarray(info["goal"], np.float64)
    return Outcome(
        policy=slot.job.policy,
        scene=slot.job.start.scene,
        seed=slot.job.start.seed,
        success=bool(info["is_success"]),
        total=round(slot.total, 6),
        steps=slot.steps,
        distance=round(float(np.linalg.norm(goal - info["pose"][:3, 3])), 6),
        goal=tuple(goal.round(6).tolist()),
    )
