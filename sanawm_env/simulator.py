"""What every kind of environment shares: from start scenes to worlds, from actions to paths, from paths to verdicts.

Functions of values: a batch of worlds (`WorldState`) and an `Episode` each go in, new ones come out. The single
environment has one of them, the vector environment many; nothing here knows which.

Shapes: N worlds, F frames of a step.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from sanawm_env import se3
from sanawm_env.actions import twist_between
from sanawm_env.controls import Control
from sanawm_env.episode import Episode
from sanawm_env.keys import Held
from sanawm_env.limits import Limits
from sanawm_env.models import find_device, shared_model
from sanawm_env.starts import Start, choose_start, find_bank
from sanawm_env.tasks import Task, Verdict
from world_model import checkpoint
from world_model.checks import check_poses
from world_model.errors import InputError, StateError
from world_model.images import default_intrinsics
from world_model.model import WorldModel
from world_model.state import WorldState


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Where an episode is to begin, and the seed of its world's noise."""

    start: Start
    world_seed: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Poses (F, 4, 4) float64 of a step, and the keyboard after it."""

    path: np.ndarray
    held: Held


class Simulator:
    """A world model, a bank of start scenes and a control. Pickles without weights if they were named."""

    def __init__(
        self,
        *,
        model: str | Path | WorldModel,
        device: str | None,
        starts: str | Path | None,
        control: Control,
        limits: Limits,
        decodes: bool,
    ) -> None:
        self._source: tuple[str | Path, str] | None = None  # where to read the weights again
        if isinstance(model, WorldModel):
            if device is not None and find_device(device) != model.device:
                raise InputError(f"device: expected the model's own, {model.device}, or none, got {device!r}")
            self.model = model
        else:
            self._source = model, device or "cpu"
            self.model = shared_model(*self._source)
        self.bank = find_bank(starts, checkpoint.find(model) if isinstance(model, str | Path) else None)
        self.control, self.limits, self.decodes = control, limits, decodes

    def draw(self, task: Task, options: Mapping[str, Any] | None, rng: np.random.Generator) -> Draw:
        """Where to begin: what the options say, the rest at random. Raises InputError."""
        world_seed = int(rng.integers(2**31))
        start = choose_start(options, self.bank, rng)
        if task.needs_goal and start.goal is None:
            raise InputError(f"goal: expected options['goal'] (3,) in metres for task {task}, got none")
        return Draw(start=start, world_seed=world_seed)

    def begin(self, tasks: Sequence[Task], draws: Sequence[Draw]) -> tuple[WorldState, tuple[Episode, ...]]:
        """New worlds, one a draw, in one batch. Raises InputError."""
        starts = [draw.start for draw in draws]
        lenses = np.stack([default_lens(s) if s.intrinsics is None else s.intrinsics for s in starts])
        images, prompts = [s.image for s in starts], [s.prompt for s in starts]
        world, frames = self.model.reset(images, prompts, lenses, [draw.world_seed for draw in draws])
        episodes = tuple(
            Episode(
                scene=draw.start.name,
                prompt=draw.start.prompt,
                intrinsics_source=draw.start.intrinsics_source,
                world_seed=draw.world_seed,
                intrinsics=world.intrinsics[i].cpu().numpy().copy(),
                goal=draw.start.goal,
                latent=world.start[i, :, 0].float().cpu().numpy().copy(),
                frames=frames[i].numpy().copy() if self.decodes else None,
                verdict=Verdict(reward=0.0, terminated=False, is_success=task.is_success(draw.start.goal, np.eye(4))),
            )
            for i, (task, draw) in enumerate(zip(tasks, draws, strict=True))
        )
        return world, episodes

    def plan(self, episode: Episode, action: ArrayLike) -> Plan:
        """The path of an action. Raises InputError."""
        config = self.model.config
        path, held = self.control.path(
            action, episode.pose, episode.held, config.frames_per_step, config.fps, self.limits
        )
        return Plan(path=path, held=held)

    def plan_to(self, poses: ArrayLike) -> Plan:
        """The path of poses (F, 4, 4) themselves, made exactly rigid; keys are let go. Raises InputError."""
        path = np.array(poses)
        frames = self.model.config.frames_per_step
        if path.shape != (frames, 4, 4) or not np.issubdtype(path.dtype, np.floating):
            raise InputError(f"poses: expected {(frames, 4, 4)} floating point, got {path.shape} {path.dtype}")
        path = path.astype(np.float64)
        check_poses(torch.from_numpy(path))
        path[:, :3, :3], path[:, 3] = se3.nearest_rotation(path[:, :3, :3]), (0, 0, 0, 1)
        self.limits.check(path)
        return Plan(path=path, held=Held())

    def advance(
        self, world: WorldState, tasks: Sequence[Task], episodes: Sequence[Episode], plans: Sequence[Plan]
    ) -> tuple[WorldState, tuple[Episode, ...]]:
        """The worlds one step later, in one forward."""
        world, chunk = self.model.step_latent(world, np.stack([plan.path for plan in plans]))
        frames = None
        if self.decodes:
            world, frames = self.model.decode(world, chunk)
        latents = chunk.values[:, :, -1].float().cpu().numpy()
        after = []
        for i, (task, episode, plan) in enumerate(zip(tasks, episodes, plans, strict=True)):
            before = plan.path[-2] if len(plan.path) > 1 else episode.pose
            after.append(
                dataclasses.replace(
                    episode,
                    latent=latents[i].copy(),
                    frames=None if frames is None else frames[i].numpy().copy(),
                    verdict=task.judge(episode.goal, episode.pose, plan.path[-1]),
                    pose=plan.path[-1],
                    velocity=twist_between(before, plan.path[-1], 1 / self.model.config.fps),
                    frame=episode.frame + len(plan.path),
                    steps=episode.steps + 1,
                    held=plan.held,
                )
            )
        return world, tuple(after)

    def check(self, world: WorldState, episodes: Sequence[Episode], tasks: Sequence[Task]) -> None:
        """Raises StateError or InputError for a snapshot that cannot go on here."""
        if world.model != self.model.fingerprint:
            raise StateError(f"expected a snapshot of model {self.model.fingerprint}, got one of {world.model}")
        for episode, task in zip(episodes, tasks, strict=True):
            if self.decodes and episode.frames is None:
                raise StateError("expected a snapshot with decoded frames, got one flown in latent space only")
            if task.needs_goal and episode.goal is None:
                raise InputError(f"goal: expected a snapshot with a goal for task {task}, got one without")

    def info(self, episode: Episode, with_frames: bool) -> dict[str, Any]:
        """What the environment tells of an episode; fresh arrays, since users keep what they are given."""
        config = self.model.config
        info = {
            "pose": episode.pose.copy(),
            "velocity": episode.velocity.copy(),
            "intrinsics": episode.intrinsics.copy(),
            "time": episode.frame / config.fps,
            "is_success": episode.verdict.is_success,
        }
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

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | ({"model": None} if self._source else {})

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._source:
            self.model = shared_model(*self._source)


def default_lens(start: Start) -> np.ndarray:
    """The intrinsics (4,) float32 of a start picture that has none."""
    return default_intrinsics(*start.image.shape[:2]).numpy()
