"""Batches of worlds on disk, whichever engine made them; and worlds whose whole state is a few arrays.

An engine that remembers no more than arrays (a pose, a picture, the number of a scene) uses `ArrayWorlds`; the world
model has its own `WorldState`. Both are safetensors files, told apart by the metadata `format`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from sanawm_env.engine import Worlds
from world_model.checks import check_seeds
from world_model.errors import StateError
from world_model.state import WorldState

FORMAT = "sanawm-array-worlds"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class ArrayWorlds:
    """N worlds as named arrays (N, ...), which are never written again. "seed" (N,) int64 is one of them."""

    model: str  # fingerprint of the engine that made them
    arrays: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        if "seed" not in self.arrays or len({len(array) for array in self.arrays.values()}) != 1:
            shapes = {name: array.shape for name, array in self.arrays.items()}
            raise StateError(f"expected arrays of one length, 'seed' among them, got {shapes}")

    def __len__(self) -> int:
        return len(self.arrays["seed"])

    def __getitem__(self, worlds: int | slice | Sequence[int]) -> "ArrayWorlds":
        """Some worlds, as a copy. Raises IndexError for a world that is not there."""
        chosen = np.atleast_1d(np.arange(len(self))[worlds])
        return self.replace({name: array[chosen] for name, array in self.arrays.items()})

    def replace(self, arrays: Mapping[str, np.ndarray]) -> "ArrayWorlds":
        """The same worlds with some arrays exchanged."""
        return ArrayWorlds(model=self.model, arrays={**self.arrays, **arrays})

    @staticmethod
    def cat(states: Sequence["ArrayWorlds"]) -> "ArrayWorlds":
        """One batch of all worlds, in order. Raises StateError if they come from different engines."""
        if not states:
            raise StateError("ArrayWorlds.cat: expected at least one batch, got none")
        first = states[0]
        for state in states:
            if state.model != first.model:
                raise StateError(f"ArrayWorlds.cat: expected worlds of {first.model}, got {state.model}")
        return first.replace({name: np.concatenate([s.arrays[name] for s in states]) for name in first.arrays})

    def fork(self, count: int, seeds: Sequence[int] | None = None) -> "ArrayWorlds":
        """`count` copies of a single world, with other seeds if some are given. Raises StateError, InputError."""
        if len(self) != 1:
            raise StateError(f"fork: expected a single world, got {len(self)}; choose one with state[i]")
        copies = self[[0] * count]
        return copies if seeds is None else copies.replace({"seed": check_seeds(seeds, count).numpy()})

    def save(self, path: str | Path) -> None:
        """All arrays in one safetensors file."""
        metadata = {"format": FORMAT, "version": str(VERSION), "model": self.model}
        save_file({name: np.ascontiguousarray(array) for name, array in self.arrays.items()}, path, metadata)

    @staticmethod
    def load(path: str | Path) -> "ArrayWorlds":
        """Raises StateError for a file that holds no such worlds, or of another version."""
        try:
            with safe_open(path, "numpy") as file:
                metadata = file.metadata() or {}
                # owned and aligned, unlike views of the file
                arrays = {name: np.array(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise StateError(f"{path}: expected worlds in a safetensors file, got: {error}") from error
        got = metadata.get("format"), metadata.get("version")
        if got != (FORMAT, str(VERSION)) or "model" not in metadata:
            raise StateError(f"{path}: expected format {FORMAT!r} version {VERSION}, got {got[0]!r} version {got[1]}")
        return ArrayWorlds(model=metadata["model"], arrays=arrays)


def load_worlds(path: str | Path, device: str = "cpu") -> Worlds:
    """A batch of worlds of any engine; the world model's on `device`. Raises StateError for a file that is none."""
    try:
        with safe_open(path, "numpy") as file:
            kind = (file.metadata() or {}).get("format")
    except (SafetensorError, OSError) as error:
        raise StateError(f"{path}: expected a world state in a safetensors file, got: {error}") from error
    return ArrayWorlds.load(path) if kind == FORMAT else WorldState.load(path, device)
