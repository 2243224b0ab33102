"""The released training set's layout: latents that are encoded already, in zip archives, cameras beside them.

    RAW/NAME.zip    KEY.json of each clip: width, height, prompt
    CACHE/NAME.zip  KEY.npz of each clip: z (C, T, Y, X), normalised latents
    RAW/NAME_*      cameras and more: see zip_sidecars.py

A window begins where its clip begins: there is no tokenizer at hand to make another start latent. Clips are read
from the archives when they are drawn, so the set may be larger than memory (training specification, 9.2 and 9.3).

Legend: B windows, C channels, T latents, F = 1 + (T-1)*R frames, R temporal stride, Y X cells.
"""

import io
import json
import logging
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from world_model.errors import EpisodeError, InputError, require
from world_model.train.data.latents import Windows
from world_model.train.data.zip_sidecars import Sidecars, read_sidecars

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ZipLatents:
    """`"format": "zip-latents"`: a set of clips on disk."""

    raw: Path  # folder of archives with clips' descriptions, and of what lies beside them
    cache: Path  # folder of archives of the same names, with latents
    stride: int = 8  # video frames a latent
    cell: int = 32  # pixels a latent's cell, each way
    min_bytes: int = 10 * 2**20  # of an .npz: what is smaller was cut off while it was written
    skip_bad: bool = False  # leave out, with a warning, what is truncated or lacks a camera, rather than refuse
    filters: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # suffix -> lowest, highest score
    caption_suffix: str = ""  # captions beside the archive instead of the clips' own prompts

    def __post_init__(self) -> None:
        lowest = min(self.stride, self.cell)
        require(lowest >= 1, f"stride, cell: expected >= 1, got {self.stride}, {self.cell}")
        for suffix, bounds in self.filters.items():
            require(
                len(bounds) == 2 and bounds[0] <= bounds[1], f"filters: {suffix}: expected [low, high], got {bounds}"
            )

    def open(self) -> "ZipLatentDataset":
        """Look at every archive's list and what lies beside it; reads no latents.

        Raises EpisodeError, which names the clip, for a truncated one or one without a camera, unless `skip_bad`.
        """
        archives = sorted(self.raw.glob("*.zip"))
        if not archives:
            raise EpisodeError(f"{self.raw}: expected archives NAME.zip, found none")
        clips = [clip for archive in archives for clip in _open_archive(self, archive)]
        if not clips:
            raise EpisodeError(f"{self.raw}: expected clips with latents and within the filters, found none")
        log.info("%s: %d clips of %d archives", self.raw, len(clips), len(archives))
        return ZipLatentDataset(stride=self.stride, cell=self.cell, clips=tuple(clips))


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One clip, its latents still in the archive."""

    name: str  # archive/key
    archive: Path  # of latents
    entry: str
    latents: int  # T
    c2w: np.ndarray  # (F, 4, 4) float32, relative to the first frame, metres
    intrinsics: np.ndarray  # (4,) of the clip's own pixels
    size: tuple[int, int]  # height, width of these pixels
    caption: str


@dataclass(frozen=True, kw_only=True)
class ZipLatentDataset:
    """All clips of a set that passed. Drawn from as from `LatentDataset`."""

    stride: int
    cell: int
    clips: tuple[Clip, ...]

    @property
    def captions(self) -> tuple[str, ...]:
        return tuple(clip.caption for clip in self.clips)

    def places(self, length: int) -> list[tuple[int, int]]:
        """All (clip, 0) that have `length` latents."""
        if length < 2:
            raise InputError(f"windows: expected at least 2 latents, got {length}")
        return [(index, 0) for index, clip in enumerate(self.clips) if clip.latents >= length]

    def sample(self, batch: int, length: int, generator: torch.Generator) -> Windows:
        """Random windows. Raises InputError when no clip has `length` latents, EpisodeError for a broken one."""
        places = self.places(length)
        if not places:
            raise InputError(f"windows of {length} latents: no clip of {len(self.clips)} is that long")
        drawn = torch.randint(len(places), (batch,), generator=generator).tolist()
        return self.windows([places[index] for index in drawn], length)

    def windows(self, places: list[tuple[int, int]], length: int) -> Windows:
        """The windows at `places`, each (clip, 0), all of one picture size."""
        if any(start for _, start in places):
            raise InputError(f"window: expected a start at latent 0, got {places}")
        clips = [self.clips[index] for index, _ in places]
        latents = [self._latents(clip, length) for clip in clips]
        shapes = {tuple(x.shape) for x in latents}
        if len(shapes) != 1:
            raise InputError(f"windows: expected latents of one shape, got {sorted(shapes)}")
        frames = 1 + (length - 1) * self.stride
        lenses = [self._lens(clip, x) for clip, x in zip(clips, latents, strict=True)]
        return Windows(
            latents=torch.stack(latents),
            c2w=torch.from_numpy(np.stack([clip.c2w[:frames] for clip in clips])),
            intrinsics=torch.from_numpy(np.stack(lenses)),
            captions=tuple(clip.caption for clip in clips),
            ids=tuple(f"{clip.name}@0" for clip in clips),
        )

    def _latents(self, clip: Clip, length: int) -> Tensor:
        """(C, `length`, Y, X) float32."""
        where = f"{clip.archive}: {clip.entry}"
        try:
            with zipfile.ZipFile(clip.archive) as archive:
                z = np.load(io.BytesIO(archive.read(clip.entry)))["z"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise EpisodeError(f"{where}: expected an .npz with an array z, got {error}") from error
        if z.ndim != 4 or z.shape[1] < clip.latents:
            raise EpisodeError(f"{where}: expected z (C, {clip.latents} or more, Y, X), got {z.shape}")
        return torch.from_numpy(z[:, :length].astype(np.float32))

    def _lens(self, clip: Clip, latents: Tensor) -> np.ndarray:
        """Intrinsics in pixels of the frames that the latents stand for."""
        (height, width), (rows, columns) = clip.size, latents.shape[2:]
        x, y = columns * self.cell / width, rows * self.cell / height
        return (clip.intrinsics * [x, y, x, y]).astype(np.float32)


def _open_archive(source: ZipLatents, raw: Path) -> list[Clip]:
    """The clips of one archive that pass the filters."""
    cache = source.cache / raw.name
    try:
        with zipfile.ZipFile(raw) as archive:
            texts = {name[:-5]: archive.read(name) for name in archive.namelist() if name.endswith(".json")}
        with zipfile.ZipFile(cache) as archive:
            sizes = {
                info.filename[:-4]: info.file_size for info in archive.infolist() if info.filename.endswith(".npz")
            }
    except (OSError, zipfile.BadZipFile) as error:
        raise EpisodeError(f"{raw}, {cache}: expected two zip archives, got {error}") from error
    beside = read_sidecars(raw, source.filters, source.caption_suffix)
    clips = []
    for key in sorted(texts.keys() & sizes.keys()):
        if not beside.passes(key):
            continue
        try:
            if sizes[key] < source.min_bytes:
                raise EpisodeError(f"expected at least {source.min_bytes} bytes, got {sizes[key]}: truncated")
            clips.append(_clip(cache, key, texts[key], beside, source.stride))
        except EpisodeError as error:
            if not source.skip_bad:
                raise EpisodeError(f"{cache}: {key}.npz: {error}") from error
            log.warning("left out: %s: %s.npz: %s", cache, key, error)
    return clips


def _clip(cache: Path, key: str, text: bytes, beside: Sidecars, stride: int) -> Clip:
    try:
        said = json.loads(text)
        size, prompt = (int(said["height"]), int(said["width"])), str(said.get("prompt") or "")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EpisodeError(f"expected {key}.json with width, height and prompt, got {error}") from error
    if min(size) < 1:
        raise EpisodeError(f"expected {key}.json with a width and a height >= 1, got {size}")
    c2w, lens = beside.camera(key, stride)
    return Clip(
        name=f"{cache.stem}/{key}",
        archive=cache,
        entry=f"{key}.npz",
        latents=1 + (len(c2w) - 1) // stride,
        c2w=c2w,
        intrinsics=lens,
        size=size,
        caption=beside.caption(key) or prompt,
    )
