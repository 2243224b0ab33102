"""Random clips of raw frames, from episodes whose video is decoded once.

Decoding at every draw would be slower than the training step. So each episode's frames lie as one uint8 .npy file
in a cache folder (49 kB a frame at 128x128) and are mapped, not read; the file's name is a checksum of what the episode
is made of, so a changed episode is decoded anew and the cache may be deleted at any time.

Legend: B batch, F frames, H W pixels.
"""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from world_model.errors import EpisodeError, InputError
from world_model.train.data.source import Entry, open_entries

log = logging.getLogger(__name__)


def cached_frames(entry: Entry, cache: Path) -> np.ndarray:
    """The episode's frames, uint8 (T, H, W, 3), mapped from `cache`, where they are put first if need be."""
    path = cache / f"{entry.key}.npy"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        with part.open("wb") as file:
            np.save(file, entry.read().frames)
        os.replace(part, path)
    return np.load(path, mmap_mode="r")


@dataclass(frozen=True, kw_only=True)
class ClipDataset:
    """All frames of a set of episodes."""

    names: tuple[str, ...]
    frames: tuple[np.ndarray, ...]  # (T, H, W, 3) uint8 each

    def sample(self, batch: int, length: int, generator: torch.Generator) -> tuple[Tensor, tuple[str, ...]]:
        """Clips of `length` consecutive frames, uint8 (B, F, H, W, 3), and where each comes from.

        Raises InputError when an episode is shorter than `length`.
        """
        clips, ids = [], []
        for _ in range(batch):
            index = int(torch.randint(len(self.frames), (), generator=generator))
            frames = self.frames[index]
            if len(frames) < length:
                raise InputError(f"clip of {length} frames: episode {self.names[index]} has {len(frames)}")
            start = int(torch.randint(len(frames) - length + 1, (), generator=generator))
            clips.append(torch.from_numpy(np.array(frames[start : start + length])))
            ids.append(f"{self.names[index]}@{start}")
        return torch.stack(clips), tuple(ids)


def open_clips(data: tuple[str, ...], cache: str, size: tuple[int, int]) -> ClipDataset:
    """The episodes that exist now in `data` (see source.py); their frames must be of `size` (height, width).

    Raises EpisodeError when there are none, or one is of another size.
    """
    entries = open_entries(data, size)
    frames = [cached_frames(entry, Path(cache)) for entry in tqdm(entries, desc="frames", unit="episode")]
    for entry, array in zip(entries, frames, strict=True):
        if array.shape[1:] != (*size, 3):
            raise EpisodeError(f"{entry.where}: expected frames of {(*size, 3)}, got {array.shape[1:]}")
    log.info("%d episodes, %d frames", len(entries), sum(len(array) for array in frames))
    return ClipDataset(names=tuple(entry.where for entry in entries), frames=tuple(frames))


def to_video(clips: Tensor) -> Tensor:
    """uint8 (B, F, H, W, 3) -> float32 video (B, 3, F, H, W) in [-1, 1]."""
    return clips.movedim(-1, 1).float() / 127.5 - 1
