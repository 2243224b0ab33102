"""A batch of worlds as one frozen value: everything that they carry from chunk to chunk.

Fork: keep the old value. Snapshot: save and load. Slots: `state[i]`, `WorldState.cat`. Worlds of one batch may be at
different latent indices; what a world does not have yet is there as zeros and marked as missing.

Shapes: B worlds, H heads, D head channels, C latent channels, Y rows, X columns, S = Y*X, L words.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Never

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from world_model.attention import DeltaCache, SoftmaxCache
from world_model.checks import check_seeds
from world_model.errors import StateError
from world_model.tree import build, map_tensors, named_tensors

FORMAT = "sanawm-world-state"
VERSION = 1


@dataclass(frozen=True)
class WindowEntry:
    """Keys and values of one chunk, one SoftmaxCache a softmax block; shared between forks, never written again."""

    there: Tensor  # (B,) bool on the CPU: worlds that have this chunk
    blocks: tuple[SoftmaxCache, ...]

    @property
    def tokens(self) -> int:
        return self.blocks[0].keys.shape[2] if self.blocks else 0


@dataclass(frozen=True)
class WorldState:
    """Bookkeeping (index, decoded, seed, window[i].there) lies on the CPU, the rest on the model's device."""

    model: str  # fingerprint of the model that made it
    index: Tensor  # (B,) int64: the latent that the next step makes; 0 while the start latent is pending
    decoded: Tensor  # (B,) int64: the latent that decode expects next
    seed: Tensor  # (B,) int64
    pose: Tensor  # (B, 4, 4) float32, camera-to-world of the last frame, relative to the start frame
    intrinsics: Tensor  # (B, 4) float32, pixels of the model's frame
    text: Tensor  # (B, L, E)
    text_mask: Tensor  # (B, L) bool
    start: Tensor  # (B, C, 1, Y, X) the start latent
    previous: Tensor  # (B, C, 1, Y, X) the last decoded latent, all that the decoder remembers
    delta: tuple[DeltaCache, ...]  # one a delta-rule block
    tails: tuple[Tensor, ...]  # (B, 1, S, width), one a block
    window: tuple[WindowEntry, ...]  # the sink, then the recent chunks, oldest first
    refined: tuple["WorldState", ...] = ()  # the refiner's own worlds of the same path, where there is a refiner

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, worlds: int | slice | Sequence[int]) -> "WorldState":
        """Some worlds, as a copy that owns its storage. Raises IndexError for a world that is not there."""
        chosen = torch.arange(len(self))[[worlds] if isinstance(worlds, int) else worlds]
        refined = tuple(state[worlds] for state in self.refined)
        alone = dataclasses.replace(self, refined=())
        state = map_tensors(lambda x: x.index_select(0, chosen.to(x.device)), alone)
        needed = tuple(e for i, e in enumerate(state.window) if i == 0 or e.there.any())
        window = needed if state.window and state.window[0].there.any() else ()
        return dataclasses.replace(state, window=window, refined=refined)

    @staticmethod
    def cat(states: Sequence["WorldState"]) -> "WorldState":
        """One batch of all worlds, in order. Raises StateError if they come from different models."""
        if not states:
            raise StateError("WorldState.cat: expected at least one state, got none")
        for state in states:
            if state.model != states[0].model:
                raise StateError(f"WorldState.cat: expected worlds of model {states[0].model}, got {state.model}")
        windows = align([state.window for state in states], [len(state) for state in states])
        refined = tuple(WorldState.cat(worlds) for worlds in zip(*(s.refined for s in states), strict=True))
        aligned = [dataclasses.replace(s, window=w, refined=()) for s, w in zip(states, windows, strict=True)]
        return dataclasses.replace(map_tensors(lambda *xs: torch.cat(xs), *aligned), refined=refined)

    def fork(self, count: int, seeds: Sequence[int] | None = None) -> "WorldState":
        """`count` copies of a single world. Without seeds they keep its noise, so equal poses give equal futures."""
        if len(self) != 1:
            raise StateError(f"fork: expected a single world, got {len(self)}; choose one with state[i]")
        copies = self[[0] * count]
        return copies if seeds is None else copies.reseeded(check_seeds(seeds, count))

    def reseeded(self, seed: Tensor) -> "WorldState":
        """The same worlds with other noise to come; seed (B,) int64."""
        return dataclasses.replace(self, seed=seed, refined=tuple(state.reseeded(seed) for state in self.refined))

    def bytes_per_world(self) -> int:
        """Memory that one world of this batch holds."""
        return sum(t.numel() * t.element_size() for t in named_tensors(self).values()) // max(len(self), 1)

    def consume(self) -> None:
        """Let go of every tensor; any later use raises StateError."""
        vars(self).clear()

    def __getattr__(self, name: str) -> Never:  # for what is missing: nothing of a live state is
        if name in {field.name for field in dataclasses.fields(self)}:
            raise StateError("expected a live state, got one that was donated to a step and consumed by it")
        raise AttributeError(name)

    def save(self, path: str | Path) -> None:
        """Everything in one safetensors file, with the format's version and the model's fingerprint."""
        tensors = {name: t.detach().cpu().contiguous() for name, t in named_tensors(self).items()}
        metadata = {"format": FORMAT, "version": str(VERSION), "model": self.model}
        save_file({n: t.clone() for n, t in tensors.items()}, path, metadata=metadata)

    @staticmethod
    def load(path: str | Path, device: str | torch.device = "cpu") -> "WorldState":
        """Raises StateError for a file that is no state, truncated, or of another version."""
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                # clones own aligned memory; the file's mapping would change which kernels run
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise StateError(f"{path}: expected a world state in a safetensors file, got: {error}") from error
        got = metadata.get("format"), metadata.get("version")
        if got != (FORMAT, str(VERSION)):
            raise StateError(f"{path}: expected format {FORMAT!r} version {VERSION}, got {got[0]!r} version {got[1]}")
        try:
            state = build(WorldState, tensors, dict.fromkeys(("model", "refined.0.model"), metadata["model"]))
        except KeyError as error:
            raise StateError(f"{path}: expected a tensor or field {error}, got a file without it") from error
        return state.to(device)

    def to(self, device: str | torch.device) -> "WorldState":
        """The same worlds on a device; their bookkeeping stays on the CPU."""
        stays = {"index", "decoded", "seed", "refined"}
        moved = {n: map_tensors(lambda t: t.to(device), v) for n, v in vars(self).items() if n not in stays}
        window = tuple(dataclasses.replace(e, there=e.there.cpu()) for e in moved["window"])
        refined = tuple(state.to(device) for state in self.refined)
        return dataclasses.replace(self, **(moved | {"window": window, "refined": refined}))


def align(windows: list[tuple[WindowEntry, ...]], sizes: list[int]) -> list[tuple[WindowEntry, ...]]:
    """Windows of equal length: a missing sink or recent chunk becomes zeros that no world has."""
    longest = max(windows, key=len)
    aligned = []
    for window, size in zip(windows, sizes, strict=True):
        missing = [absent(e, size) for e in longest[min(len(window), 1) : len(longest) - max(len(window) - 1, 0)]]
        aligned.append((*window[:1], *missing, *window[1:]))
    return aligned


def absent(like: WindowEntry, size: int) -> WindowEntry:
    return map_tensors(lambda x: x.new_zeros(size, *x.shape[1:]), like)
