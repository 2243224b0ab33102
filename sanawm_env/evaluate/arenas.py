"""The worlds that policies are scored in: the true one, the world model's, and those of the baselines."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from sanawm_env.camera_env import CameraEnv, Settings
from sanawm_env.camera_vector import CameraVectorEnv
from sanawm_env.evaluate.baselines import KINDS, StartPictureEngine
from sanawm_env.starts import Start
from world_model.config import WorldConfig
from world_model.errors import InputError

TRUTH, MODEL = "twin", "model"


@dataclass(frozen=True, kw_only=True)
class Arenas:
    """How to make each world. count: worlds in one batch; steps: limit of an episode; starts: bank for all, or the
    environment's own. The environments must be of this package's kind: their start scenes are asked for.
    """

    env: str
    twin: str
    env_args: Mapping[str, Any]
    twin_args: Mapping[str, Any]
    starts: Path | None
    steps: int
    count: int

    @cached_property
    def _first(self) -> CameraEnv:
        """One environment of the world model, to ask for its scenes and sizes."""
        env = gym.make(self.env, **self._given(self.env_args)).unwrapped
        if not isinstance(env, CameraEnv):
            raise InputError(f"env: expected an environment of this package, such as SanaWM-v0, got {self.env!r}")
        return env

    @property
    def bank(self) -> tuple[Start, ...]:
        return self._first.simulator.bank

    @property
    def config(self) -> WorldConfig:
        """Size of the frames, their rate and number a step."""
        return self._first.simulator.engine.config

    @property
    def scenes(self) -> tuple[str, ...]:
        """Names of the start scenes that have a goal."""
        return tuple(start.name for start in self.bank if start.goal is not None)

    @property
    def starts_digest(self) -> str:
        """A checksum of the start scenes: names, goals and pictures."""
        digest = hashlib.sha256()
        for start in self.bank:
            goal = None if start.goal is None else np.asarray(start.goal).tolist()
            digest.update(f"{start.name} {goal}".encode() + np.ascontiguousarray(start.image).tobytes())
        return digest.hexdigest()[:16]

    @property
    def fingerprint(self) -> str:
        return self._first.simulator.engine.fingerprint

    def make(self, world: str) -> gym.vector.VectorEnv:
        """`count` worlds of a kind, observation "rgb", control "twist", no autoreset. Raises InputError."""
        if world in KINDS:
            simulator = self._first.simulator
            engine = StartPictureEngine(world, simulator.engine.config)
            env = CameraEnv(engine, Settings(bank=simulator.bank, task=self._first.task))
            return CameraVectorEnv(env, self.count, self.steps, "Disabled")
        name, arguments = self._named(world)
        return gym.make_vec(
            name, num_envs=self.count, max_episode_steps=self.steps, autoreset_mode="Disabled", **arguments
        )

    def make_one(self, world: str) -> gym.Env:
        """One world without a task, which tells all frames of a step."""
        name, arguments = self._named(world)
        return gym.make(name, max_episode_steps=-1, **(arguments | {"task": "none", "info_frames": True}))

    def _named(self, world: str) -> tuple[str, dict[str, Any]]:
        if world not in (TRUTH, MODEL):
            raise InputError(f"world: expected one of {(TRUTH, MODEL, *KINDS)}, got {world!r}")
        return (self.twin, self._given(self.twin_args)) if world == TRUTH else (self.env, self._given(self.env_args))

    def _given(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return dict(arguments) | ({} if self.starts is None else {"starts": self.starts})
