"""What every kind of environment shares: from start scenes to worlds, from actions to paths, from paths to verdicts.

Functions of values: a batch of worlds and an `Episode` each go in, new ones come out. The single environment has one of
them, the vector environment many; nothing here knows which, nor what draws the frames: that is the engine's.

Shapes: N worlds, F frames of a step.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from sanawm_env import se3
from sanawm_env.actions import twist_between
from sanawm_env.aims import fit_pictures, scene_aims, split_options
from sanawm_env.controls import Control
from sanawm_env.engine import Chunk, Engine, Pixels, Worlds
from sanawm_env.episode import Episode
from sanawm_env.keys import Held
from sanawm_env.limits import Limits
from sanawm_env.reliability import SIGNAL, Reliability
from sanawm_env.starts import Start
from sanawm_env.tasks import Task
from world_model.checks import check_poses
from world_model.errors import InputError, StateError


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Where an episode is to begin, and the seed of its world's noise."""

    start: Start
    world_seed: int
    aims: Mapping[str, np.ndarray] = field(default_factory=dict)  # what the options and the scene give the task


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Poses (F, 4, 4) float64 of a step, and the keyboard after it."""

    path: np.ndarray
    held: Held


@dataclass(frozen=True, kw_only=True)
class Simulator:
    """An engine, a bank of start scenes and a control. pixels: which frames of a step somebody will look at.

    reliability: how to measure it, None: not at all.
    """

    engine: Engine[Any]
    bank: tuple[Start, ...]
    control: Control
    limits: Limits
    pixels: Pixels
    reliability: Reliability | None = None

    @property
    def signals(self) -> tuple[str, ...]:
        """Names of what `info` tells of every frame beside what it tells of all engines' worlds."""
        return (*self.engine.signals, *[SIGNAL] * (self.reliability is not None))

    def draw(self, task: Task, options: Mapping[str, Any] | None, rng: np.random.Generator) -> Draw:
        """Where to begin: what the options say, the rest at random. Raises InputError."""
        world_seed = int(rng.integers(2**31))
        aims, others = split_options(task, options)
        start = self.engine.choose(others, self.bank, rng)
        if task.needs_goal and start.goal is None:
            raise InputError(f"goal: expected options['goal'] (3,) in metres for task {task}, got none")
        return Draw(start=start, world_seed=world_seed, aims=aims or scene_aims(task, start, world_seed))

    def begin(self, tasks: Sequence[Task], draws: Sequence[Draw]) -> tuple[Any, tuple[Episode, ...]]:
        """New worlds, one a draw, in one batch. Raises InputError."""
        seeds = [draw.world_seed for draw in draws]
        worlds, chunk = self.engine.begin([draw.start for draw in draws], seeds, self.pixels)
        lenses = self.engine.intrinsics(worlds)
        trust = {} if self.reliability is None else {SIGNAL: np.array(1.0)}
        episodes = tuple(
            Episode(
                scene=draw.start.name,
                prompt=draw.start.prompt,
                intrinsics_source=draw.start.intrinsics_source,
                world_seed=draw.world_seed,
                intrinsics=lenses[i].copy(),
                goal=draw.start.goal,
                latent=None if chunk.latents is None else chunk.latents[i].copy(),
                frames=None if chunk.frames is None else chunk.frames[i].copy(),
                signals={**chunk.signals[i], **trust},
                aims=fit_pictures(task, draw.aims, self.engine.config, self.engine),
            )
            for i, (task, draw) in enumerate(zip(tasks, draws, strict=True))
        )
        begun = zip(tasks, episodes, strict=True)
        return worlds, tuple(
            dataclasses.replace(episode, verdict=task.begin(episode), aims={}) for task, episode in begun
        )

    def plan(self, episode: Episode, action: ArrayLike) -> Plan:
        """The path of an action. Raises InputError."""
        config = self.engine.config
        path, held = self.control.path(
            action, episode.pose, episode.held, config.frames_per_step, config.fps, self.limits
        )
        return Plan(path=path, held=held)

    def plan_to(self, poses: ArrayLike) -> Plan:
        """The path of poses (F, 4, 4) themselves, made exactly rigid; keys are let go. Raises InputError."""
        path = np.array(poses)
        frames = self.engine.config.frames_per_step
        if path.shape != (frames, 4, 4) or not np.issubdtype(path.dtype, np.floating):
            raise InputError(f"poses: expected {(frames, 4, 4)} floating point, got {path.shape} {path.dtype}")
        path = path.astype(np.float64)
        check_poses(torch.from_numpy(path))
        path[:, :3, :3], path[:, 3] = se3.nearest_rotation(path[:, :3, :3]), (0, 0, 0, 1)
        self.limits.check(path)
        return Plan(path=path, held=Held())

    def advance(
        self, worlds: Worlds, tasks: Sequence[Task], episodes: Sequence[Episode], plans: Sequence[Plan]
    ) -> tuple[Any, tuple[Episode, ...]]:
        """The worlds one step later, in one call of the engine."""
        ahead, chunk = self.engine.advance(worlds, np.stack([plan.path for plan in plans]), self.pixels)
        told, lost = self._trust(worlds, episodes, chunk)
        after = []
        for i, (task, episode, plan) in enumerate(zip(tasks, episodes, plans, strict=True)):
            path = chunk.poses[i]
            before = path[-2] if len(path) > 1 else episode.pose
            moved = dataclasses.replace(
                episode,
                latent=None if chunk.latents is None else chunk.latents[i].copy(),
                frames=None if chunk.frames is None else chunk.frames[i].copy(),
                signals=told[i],
                pose=path[-1].copy(),
                velocity=twist_between(before, path[-1], 1 / self.engine.config.fps),
                frame=episode.frame + len(path),
                steps=episode.steps + 1,
                held=plan.held,
            )
            verdict = task.judge(episode, moved)
            verdict = dataclasses.replace(verdict, truncated=True) if lost[i] else verdict
            after.append(dataclasses.replace(moved, verdict=verdict))
        return ahead, tuple(after)

    def _trust(
        self, worlds: Worlds, episodes: Sequence[Episode], chunk: Chunk
    ) -> tuple[list[Mapping[str, np.ndarray]], np.ndarray]:
        """What each world tells after the step that made `chunk`, and which are no longer to be trusted (N,)."""
        if self.reliability is None:
            return list(chunk.signals), np.zeros(len(episodes), np.bool_)
        trust = self.reliability.after(self.engine, worlds, episodes, chunk.poses, chunk.latents)
        told = [{**signals, SIGNAL: np.array(value)} for signals, value in zip(chunk.signals, trust, strict=True)]
        return told, trust < self.reliability.least

    def check(self, worlds: Worlds, episodes: Sequence[Episode], tasks: Sequence[Task]) -> None:
        """Raises StateError or InputError for a snapshot that cannot go on here."""
        engine = self.engine
        if worlds.model != engine.fingerprint:
            raise StateError(f"expected a snapshot of model {engine.fingerprint}, got one of {worlds.model}")
        for episode, task in zip(episodes, tasks, strict=True):
            if self.pixels != "none" and episode.frames is None:
                raise StateError("expected a snapshot with decoded frames, got one flown in latent space only")
            count = 1 if episode.steps == 0 else engine.config.frames_per_step
            if self.pixels == "all" and (episode.frames is None or len(episode.frames) != count):
                raise StateError("expected a snapshot with all frames of its step, got one with its last frame only")
            if not set(self.signals) <= set(episode.signals):
                want, got = sorted(self.signals), sorted(episode.signals)
                raise StateError(f"expected a snapshot that tells {want} beside pixels, got one that tells {got}")
            if task.needs_goal and episode.goal is None:
                raise InputError(f"goal: expected a snapshot with a goal for task {task}, got one without")

    def info(self, episode: Episode, with_frames: bool) -> dict[str, Any]:
        """What the environment tells of an episode; fresh arrays, since users keep what they are given."""
        config = self.engine.config
        info = {
            "pose": episode.pose.copy(),
            "velocity": episode.velocity.copy(),
            "intrinsics": episode.intrinsics.copy(),
            "time": episode.frame / config.fps,
            "is_success": bool(episode.verdict.is_success),
        }
        signals = {name: episode.signals[name] for name in self.signals}
        info |= {name: value.item() if value.ndim == 0 else value.copy() for name, value in signals.items()}
        if episode.goal is not None:
            info["goal"] = episode.goal.copy()
        if episode.steps == 0:
            return info | {
                "scene": episode.scene,
                "prompt": episode.prompt,
                "intrinsics_source": episode.intrinsics_source,
                "world_seed": episode.world_seed,
            }
        info["moved_frames"] = np.array([episode.frame - config.frames_per_step + 1, episode.frame])
        if with_frames and episode.frames is not None:
            info["frames"] = episode.frames.copy()
        return info
