"""Engines: what draws the frames of worlds. The environments ask an engine, and know nothing else of how it draws.

The world model is one (`world_model_engine.py`), the renderer of true scenes another (`twin_engine.py`), whoever is
compared with them the next. An engine holds what all its worlds share; each batch of worlds is a value beside it.

Shapes: N worlds, F frames of a step, H, W pixels, C latent channels, Y, X latent cells.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import numpy as np

from sanawm_env.starts import Start
from world_model.config import WorldConfig

Pixels = Literal["none", "last", "all"]  # of a step: no frames, at least the last, all of them


class Worlds(Protocol):
    """A batch of worlds as a value: no call changes it. Beside these methods, `cat` of its type joins batches."""

    @property
    def model(self) -> str:
        """Fingerprint of the engine that made them."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, worlds: int | slice | Sequence[int]) -> "Worlds":
        """Some of them, as a copy. Raises IndexError for a world that is not there."""
        ...

    @staticmethod
    def cat(states: Sequence[Any]) -> Any:
        """One batch of all, in order. Raises StateError if they come from different engines."""
        ...

    def fork(self, count: int, seeds: Sequence[int] | None = None) -> "Worlds":
        """`count` copies of a single world, with its noise or with that of the seeds."""
        ...

    def save(self, path: Any) -> None:
        """Write a safetensors file whose metadata `format` is known to `sanawm_env.worlds.load_worlds`."""
        ...


W = TypeVar("W", bound=Worlds)


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """What worlds show at their start (one frame) or during a step (F frames). Shared arrays: nobody writes them.

    poses: where the camera was, relative to the start frame, metres, OpenCV axes; of a step, the path that was asked
    for, unless something stood in its way. signals: of each world, what its engine tells beside pixels, for `info`.
    """

    poses: np.ndarray  # (N, F, 4, 4) float64
    frames: np.ndarray | None  # (N, F, H, W, 3) uint8, or only the last (N, 1, H, W, 3); None: not asked for
    latents: np.ndarray | None  # (N, C, Y, X) float32, the last ones; None: the engine has none
    signals: tuple[Mapping[str, np.ndarray], ...]


class Engine(Protocol[W]):
    """What draws. Functions of values: same worlds, same paths, same frames.

    config: size of the frames, their rate and number a step. fingerprint: tells which worlds are this engine's.
    signals: names of what every chunk tells beside pixels. has_latents: whether it has any.
    """

    config: WorldConfig
    fingerprint: str
    signals: tuple[str, ...]
    has_latents: bool

    def choose(self, options: Mapping[str, Any] | None, bank: Sequence[Start], rng: np.random.Generator) -> Start:
        """Where to begin: what the options of `reset` say, else any of the bank. Raises InputError."""
        ...

    def begin(self, starts: Sequence[Start], seeds: Sequence[int], pixels: Pixels) -> tuple[W, Chunk]:
        """New worlds, one a start, and their start frames. Raises InputError."""
        ...

    def intrinsics(self, worlds: W) -> np.ndarray:
        """(N, 4) float32 fx, fy, cx, cy in pixels of the frames, a fresh array."""
        ...

    def advance(self, worlds: W, paths: np.ndarray, pixels: Pixels) -> tuple[W, Chunk]:
        """The worlds after a step along paths (N, F, 4, 4) float64, camera-to-world relative to the start frame."""
        ...

    def close(self) -> None:
        """Let go of what is held outside Python. The engine may be used again, and takes hold of it again."""
        ...
