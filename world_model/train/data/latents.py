"""Episodes as packed latents: encoded once, small enough to travel (about 2 kB a frame), read into memory.

A folder holds `latents-NNNNN.safetensors` (parts below 16 MiB, each complete for its episodes) and `index.json`:
which tokenizer, which episodes with their captions, and each part's checksum. Encoding again adds what is new, and
replaces what has changed since, or is damaged.

A clip that begins inside an episode begins with another latent than the episode's own: its frame alone; and the
latent after it remembers that one. Both are stored for every `start_every`-th latent ("starts"), so that a window is
exactly what encoding its frames by themselves gives; later latents look back one latent only and are shared.

Legend: B windows, C channels, T latents, K starts, F = 1 + (T-1)*R frames, R temporal stride, Y X cells.
"""

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from world_model.errors import CheckpointError, EpisodeError, InputError
from world_model.train import snapshot
from world_model.train.data.augment import VARIANTS
from world_model.train.data.clips import to_video
from world_model.train.data.episode import Episode
from world_model.train.data.source import from_description, is_description, open_entries, refuse_namesakes
from world_model.train.tokenizer import load_tokenizer
from world_model.vae import VideoTokenizer

log = logging.getLogger(__name__)

INDEX = "index.json"
PART_EPISODES = 64  # what a kill can cost
LATENT_FORMATS = {"zip-latents": ("world_model.train.data.zip_latents", "ZipLatents")}


@dataclass(frozen=True, kw_only=True)
class LatentsRun:
    """`python -m world_model.train latents`."""

    tokenizer: str  # folder
    data: tuple[str, ...]  # folders of episodes, JSON files that describe other datasets (source.py)
    out: str
    start_every: int = 4  # latents between the places where a window may begin
    augment: bool = False  # also encode every episode mirrored and backwards: for scenes in which nothing moves
    device: str = "cpu"
    threads: int = 1

    def __post_init__(self) -> None:
        if self.start_every < 1:
            raise InputError(f"start_every: expected >= 1 latents, got {self.start_every}")


def train(config: LatentsRun) -> None:
    """Encode the episodes that OUT lacks. Raises CheckpointError when OUT was made by another tokenizer."""
    torch.set_num_threads(config.threads)
    tokenizer = load_tokenizer(Path(config.tokenizer)).to(config.device)
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    index = _open_index(out, fingerprint(tokenizer), config.start_every, tokenizer.cfg.temporal_stride)
    entries = open_entries(config.data, (tokenizer.cfg.height, tokenizer.cfg.width))
    refuse_namesakes(entries)
    _drop_what_fails(out, index, {entry.name + suffix: entry.key for entry in entries for suffix in VARIANTS})
    known = {entry["id"] for part in index["parts"] for entry in part["episodes"]}
    suffixes = VARIANTS if config.augment else [""]
    missing = {entry.name: [suffix for suffix in suffixes if entry.name + suffix not in known] for entry in entries}
    entries = [entry for entry in entries if missing[entry.name]]
    tensors: dict[str, Tensor] = {}
    written: list[dict[str, Any]] = []
    started, frames = time.monotonic(), 0
    for entry in tqdm(entries, desc="latents", unit="episode", mininterval=5):
        episode = entry.read()
        for suffix in missing[entry.name]:
            encoded = _encode(tokenizer, VARIANTS[suffix](episode), config.start_every, entry.where)
            size = sum(x.nbytes for x in [*tensors.values(), *encoded.values()])
            if written and (size > snapshot.PART_BYTES or len(written) == PART_EPISODES):
                _flush(out, index, tensors, written)
                tensors, written = {}, []
            name = entry.name + suffix
            tensors |= {f"{name}.{key}": value for key, value in encoded.items()}
            about = {"id": name, "key": entry.key, "caption": episode.caption, "frames": len(episode.frames)}
            written.append(about)
            frames += len(episode.frames)
    if written:
        _flush(out, index, tensors, written)
    rate = frames / (time.monotonic() - started)
    added = sum(len(missing[entry.name]) for entry in entries)
    log.info("%s: %d added to %d, %d frames at %.0f a second", out, added, len(known), frames, rate)


def _encode(tokenizer: VideoTokenizer, episode: Episode, start_every: int, where: str) -> dict[str, Tensor]:
    try:
        return encode_episode(tokenizer, episode, start_every)
    except EpisodeError as error:
        raise EpisodeError(f"{where}: {error}") from error


@torch.no_grad()
def encode_episode(tokenizer: VideoTokenizer, episode: Episode, start_every: int) -> dict[str, Tensor]:
    """latents (T, C, Y, X) and starts (K, 2, C, Y, X) bfloat16, c2w (F, 4, 4) and intrinsics (4,) float32.

    Frames at the end that fill no latent are left out. Raises EpisodeError when the intrinsics change.
    """
    stride = tokenizer.cfg.temporal_stride
    count = 1 + (len(episode.frames) - 1) // stride
    frames = 1 + (count - 1) * stride
    intrinsics = episode.intrinsics[0]
    if not (episode.intrinsics == intrinsics).all():
        raise EpisodeError("intrinsics: expected the same for all frames of an episode, got a zoom")
    video = to_video(torch.from_numpy(episode.frames[None, :frames])).to(tokenizer.latents_mean.device)
    latents = tokenizer.encode(video)[0].movedim(1, 0)  # (T, C, Y, X)
    places = range(start_every * stride, frames - stride, start_every * stride)
    shape = (0, 2, *latents.shape[1:])
    starts = latents.new_empty(shape)
    if places:
        clips = torch.cat([video[:, :, place : place + 1 + stride] for place in places])
        starts = tokenizer.encode(clips).movedim(2, 1)  # (K, 2, C, Y, X)
    return {
        "latents": latents.bfloat16().cpu().contiguous(),
        "starts": starts.bfloat16().cpu().contiguous(),
        "c2w": torch.from_numpy(episode.c2w[:frames].copy()),
        "intrinsics": torch.from_numpy(intrinsics.copy()),
    }


@dataclass(frozen=True, kw_only=True)
class Windows:
    """A batch of clips that begin with a start latent."""

    latents: Tensor  # (B, C, T, Y, X) float32
    c2w: Tensor  # (B, F, 4, 4) float32, relative to the first frame of the window
    intrinsics: Tensor  # (B, 4) float32
    captions: tuple[str, ...]
    ids: tuple[str, ...]  # episode@latent


@dataclass(frozen=True, kw_only=True)
class LatentDataset:
    """All packed episodes of a folder, in memory."""

    stride: int  # video frames a latent
    start_every: int
    episodes: tuple[dict[str, Tensor], ...]  # as `encode_episode` returns
    captions: tuple[str, ...]
    ids: tuple[str, ...]

    def places(self, length: int) -> list[tuple[int, int]]:
        """All (episode, first latent) where a window of `length` latents may begin."""
        if length < 2:
            raise InputError(f"windows: expected at least 2 latents, got {length}")
        return [
            (index, start)
            for index, episode in enumerate(self.episodes)
            for start in range(0, len(episode["latents"]) - length + 1, self.start_every)
        ]

    def windows(self, places: list[tuple[int, int]], length: int) -> Windows:
        """The windows that begin at `places`, each (episode, first latent)."""
        cut = [self._window(index, start, length) for index, start in places]
        latents, c2w = (torch.stack(parts) for parts in zip(*cut, strict=True))
        return Windows(
            latents=latents.movedim(2, 1),
            c2w=c2w,
            intrinsics=torch.stack([self.episodes[index]["intrinsics"] for index, _ in places]),
            captions=tuple(self.captions[index] for index, _ in places),
            ids=tuple(f"{self.ids[index]}@{start}" for index, start in places),
        )

    def sample(self, batch: int, length: int, generator: torch.Generator) -> Windows:
        """Random windows. Raises InputError when no episode has `length` latents."""
        places = self.places(length)
        if not places:
            raise InputError(f"windows of {length} latents: no episode of {len(self.episodes)} is that long")
        drawn = torch.randint(len(places), (batch,), generator=generator).tolist()
        return self.windows([places[index] for index in drawn], length)

    def _window(self, index: int, start: int, length: int) -> tuple[Tensor, Tensor]:
        episode = self.episodes[index]
        latents = episode["latents"][start : start + length]
        if start % self.start_every or len(latents) < length:
            count = len(episode["latents"])
            raise InputError(
                f"window: expected a start that is a multiple of {self.start_every} and {length} latents from there, "
                f"got start {start} in {self.ids[index]} of {count}"
            )
        if start:
            latents = torch.cat([episode["starts"][start // self.start_every - 1], latents[2:]])
        first = start * self.stride
        c2w = episode["c2w"][first : first + 1 + (length - 1) * self.stride].double()
        return latents.float(), (torch.linalg.inv(c2w[:1]) @ c2w).float()


class WindowSource(Protocol):
    """What the world model's training draws from: `LatentDataset`, or a format that holds latents already."""

    @property
    def captions(self) -> tuple[str, ...]: ...  # of all episodes
    def places(self, length: int) -> list[tuple[int, int]]: ...
    def windows(self, places: list[tuple[int, int]], length: int) -> Windows: ...
    def sample(self, batch: int, length: int, generator: torch.Generator) -> Windows: ...


def open_latents(path: Path) -> WindowSource:
    """A folder of packed latents, or a JSON file that describes latents in another format (see source.py)."""
    return from_description(path, LATENT_FORMATS).open() if is_description(path) else open_packed(path)


def open_packed(folder: Path, *, verify: bool = True) -> LatentDataset:
    """Read what `train` wrote. Raises CheckpointError on a missing, broken or (verify) changed part."""
    index = _read_index(folder)
    episodes, captions, ids = [], [], []
    for part in index["parts"]:
        path = folder / part["file"]
        found = snapshot.checksum(path) if path.exists() and verify else part["sha256"]
        if not path.exists() or found != part["sha256"]:
            got = found if path.exists() else "no file"
            raise CheckpointError(f"{path}: expected sha256 {part['sha256']}, got {got}")
        tensors = load_file(path)
        for entry in part["episodes"]:
            keys = ("latents", "starts", "c2w", "intrinsics")
            episodes.append({key: tensors[f"{entry['id']}.{key}"] for key in keys})
            captions.append(entry["caption"])
            ids.append(entry["id"])
    return LatentDataset(
        stride=index["temporal_stride"],
        start_every=index["start_every"],
        episodes=tuple(episodes),
        captions=tuple(captions),
        ids=tuple(ids),
    )


def fingerprint(tokenizer: VideoTokenizer) -> str:
    """A checksum of the weights and statistics that latents depend on."""
    tensors = {name: x.cpu().numpy() for name, x in tokenizer.state_dict().items() if not name.startswith("decoder")}
    return snapshot.digest(b"".join(np.ascontiguousarray(tensors[name]).tobytes() for name in sorted(tensors)))


def _open_index(out: Path, tokenizer: str, start_every: int, stride: int) -> dict[str, Any]:
    fresh = {"tokenizer": tokenizer, "start_every": start_every, "temporal_stride": stride, "parts": []}
    if not (out / INDEX).exists():
        return fresh
    index = _read_index(out)
    for key in ("tokenizer", "start_every", "temporal_stride"):
        if index[key] != fresh[key]:
            raise CheckpointError(f"{out / INDEX}: expected latents with {key} {fresh[key]}, got {index[key]}")
    return index


def _drop_what_fails(out: Path, index: dict[str, Any], keys: Mapping[str, str]) -> None:
    """Take out of the index, to be encoded again: parts that are missing or damaged, and episodes that have changed.

    keys: of the episodes' content as it is now, by name. Indexes of earlier versions hold none: those are believed.
    """
    sound = []
    for part in index["parts"]:
        path = out / part["file"]
        if not path.exists() or snapshot.checksum(path) != part["sha256"]:
            log.warning("%s: damaged or missing: its %d episodes are encoded again", path, len(part["episodes"]))
            continue
        changed = {e["id"] for e in part["episodes"] if "key" in e and keys.get(e["id"], e["key"]) != e["key"]}
        if changed:
            log.warning("%s: changed since, encoded again: %s", out, ", ".join(sorted(changed)))
        part["episodes"] = [entry for entry in part["episodes"] if entry["id"] not in changed]
        sound.append(part)
    index["parts"] = sound


def _read_index(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / INDEX).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{folder / INDEX}: expected the index of packed latents: {error}") from error


def _flush(out: Path, index: dict[str, Any], tensors: dict[str, Tensor], entries: list[dict[str, Any]]) -> None:
    numbers = [int(Path(part["file"]).stem.rsplit("-", 1)[1]) for part in index["parts"]]
    stem = f"latents-{max(numbers, default=-1) + 1:05d}"
    (path,) = snapshot.write_tensors(out, stem, tensors, limit=2**62)  # train() has kept it small
    index["parts"].append({"file": path.name, "sha256": snapshot.checksum(path), "episodes": entries})
    snapshot.write_file(out / INDEX, json.dumps(index, indent=1).encode())
