"""Snapshots: everything that environments carry from step to step, as a value that can be kept, forked and written.

On disk a snapshot is a folder of two files, format version 2:

    world.safetensors      the engine's worlds, such as the world model's state (`WorldState.save`)
    episodes.safetensors   arrays of each episode as `<world>.<field>`, the task's notes as `<world>.notes.<name>`,
                           what the engine tells as `<world>.signals.<name>`; the rest as JSON in the metadata

Version 1, which knew no notes, is refused.

Numbers are written exactly, so that a restored world goes on bit for bit on the same build, device and threads.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.utils.seeding import np_random
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from sanawm_env.engine import Worlds
from sanawm_env.episode import Episode
from sanawm_env.keys import Held
from sanawm_env.verdict import Verdict
from sanawm_env.worlds import load_worlds
from world_model.errors import InputError, StateError

FORMAT = "sanawm-env-state"
VERSION = 2
ARRAYS = ("intrinsics", "pose", "velocity")
OPTIONAL = ("goal", "latent", "frames")
VALUES = ("scene", "prompt", "intrinsics_source", "world_seed", "frame", "steps")


@dataclass(frozen=True, kw_only=True)
class RandomState:
    """What draws the episodes to come: numpy's state of a PCG64, and the seed that it came from."""

    generator: dict[str, Any]
    seed: int

    @classmethod
    def of(cls, rng: np.random.Generator, seed: int) -> "RandomState":
        """A generator as it is now; it may go on."""
        return cls(generator=dict(rng.bit_generator.state), seed=int(seed))

    def revive(self) -> np.random.Generator:
        """A generator of its own, at this point. Raises StateError for the state of another kind."""
        bits = np.random.PCG64()
        try:
            bits.state = self.generator
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(f"random state: expected one of a PCG64, got {self.generator}") from error
        return np.random.Generator(bits)


@dataclass(frozen=True, kw_only=True)
class EnvState:
    """N worlds between two steps. Never written again: keeping it is the snapshot.

    The time limit of `gym.make` is a wrapper's and not in here; the vector environment's is.
    """

    world: Worlds
    episodes: tuple[Episode, ...]
    random: tuple[RandomState, ...]

    def __len__(self) -> int:
        return len(self.episodes)

    def __getitem__(self, worlds: int | slice) -> "EnvState":
        """Some of the worlds, as a copy. Raises IndexError for a world that is not there."""
        chosen = np.atleast_1d(np.arange(len(self))[worlds]).tolist()
        return EnvState(
            world=self.world[chosen],
            episodes=tuple(self.episodes[i] for i in chosen),
            random=tuple(self.random[i] for i in chosen),
        )

    @staticmethod
    def cat(states: Sequence["EnvState"]) -> "EnvState":
        """All worlds in one, in order. Raises StateError if they come from different models, or there are none."""
        if not states:
            raise StateError("EnvState.cat: expected at least one state, got none")
        return EnvState(
            world=states[0].world.cat([state.world for state in states]),
            episodes=tuple(episode for state in states for episode in state.episodes),
            random=tuple(one for state in states for one in state.random),
        )

    def fork(self, count: int, seeds: Sequence[int] | None = None) -> "EnvState":
        """`count` copies of a single world.

        Without seeds they keep its noise and its draws: equal actions give equal futures, for paired planning. Seeds
        (one a copy, >= 0) replace both. Raises InputError, StateError for more than one world.
        """
        if count < 1 or (seeds is not None and any(seed < 0 for seed in seeds)):
            raise InputError(f"fork: expected a count above 0 and seeds of at least 0, got {count} and {seeds}")
        world = self.world.fork(count, seeds)
        if seeds is None:
            return EnvState(world=world, episodes=self.episodes * count, random=self.random * count)
        return EnvState(
            world=world,
            episodes=tuple(dataclasses.replace(self.episodes[0], world_seed=int(seed)) for seed in seeds),
            random=tuple(RandomState.of(*np_random(int(seed))) for seed in seeds),
        )

    def save(self, folder: str | Path) -> None:
        """Write the folder, which may exist."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        arrays, episodes = {}, []
        for i, episode in enumerate(self.episodes):
            given = {name: getattr(episode, name) for name in ARRAYS + OPTIONAL}
            given |= {f"notes.{name}": note for name, note in episode.verdict.notes.items()}
            given |= {f"signals.{name}": signal for name, signal in episode.signals.items()}
            arrays |= {f"{i}.{name}": np.array(a, order="C") for name, a in given.items() if a is not None}
            held = {"keys": sorted(episode.held.keys), "speeds": episode.held.speeds}
            values = {name: getattr(episode, name) for name in VALUES}
            episodes.append(values | {"verdict": plain(episode.verdict), "held": held})
        header = {"episodes": episodes, "random": [dataclasses.asdict(one) for one in self.random]}
        metadata = {"format": FORMAT, "version": str(VERSION), "state": json.dumps(header)}
        self.world.save(folder / "world.safetensors")
        save_file(arrays, folder / "episodes.safetensors", metadata)

    @staticmethod
    def load(folder: str | Path, device: str = "cpu") -> "EnvState":
        """What was saved. Raises StateError for a folder that is no snapshot, incomplete, or of another version."""
        folder = Path(folder)
        world = load_worlds(folder / "world.safetensors", device)
        path = folder / "episodes.safetensors"
        try:
            with safe_open(path, "numpy") as file:
                metadata = file.metadata() or {}
                # owned and aligned, unlike views of the file
                arrays = {name: np.array(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise StateError(f"{path}: expected the episodes of a snapshot, got: {error}") from error
        got = metadata.get("format"), metadata.get("version")
        if got != (FORMAT, str(VERSION)):
            raise StateError(f"{path}: expected format {FORMAT!r} version {VERSION}, got {got[0]!r} version {got[1]}")
        try:
            header = json.loads(metadata["state"])
            episodes = tuple(read_episode(i, e, arrays) for i, e in enumerate(header["episodes"]))
            random = tuple(RandomState(**one) for one in header["random"])
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(f"{path}: expected every field of an episode, got {error!r}") from error
        if not len(world) == len(episodes) == len(random):
            counts = len(world), len(episodes), len(random)
            raise StateError(f"{folder}: expected as many worlds as episodes and random states, got {counts}")
        return EnvState(world=world, episodes=episodes, random=random)


def read_episode(index: int, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> Episode:
    """One episode of a file. Raises KeyError or TypeError for one that is incomplete."""
    mine = {name.removeprefix(f"{index}."): array for name, array in arrays.items() if name.startswith(f"{index}.")}
    return Episode(
        **{name: mine[name] for name in ARRAYS},
        **{name: mine.get(name) for name in OPTIONAL},
        **{name: header[name] for name in VALUES},
        signals=below("signals.", mine),
        verdict=Verdict(**header["verdict"], notes=below("notes.", mine)),
        held=Held(keys=frozenset(header["held"]["keys"]), speeds=tuple(header["held"]["speeds"])),
    )


def below(prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those of a prefix, without it."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def plain(verdict: Verdict) -> dict[str, Any]:
    """A verdict but its notes, as JSON can hold it: a task of the user's may pay in numpy numbers."""
    return {
        "reward": float(verdict.reward),
        "terminated": bool(verdict.terminated),
        "is_success": bool(verdict.is_success),
        "truncated": bool(verdict.truncated),
    }
