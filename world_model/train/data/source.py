"""What training reads episodes from: one interface, whatever lies on disk.

An item of a run's `data` is a folder of our own episodes, or a JSON file that describes footage in another format:

    {"format": "lerobot", "path": "kitchen", "video": "observation.images.front", ...}

The other keys are the fields of that format's dataclass; paths are relative to the JSON file. So the configuration
of a run stays a list of names, and several runs share one description.
"""

import dataclasses
import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from world_model.errors import BackendError, EpisodeError, InputError
from world_model.train.data.episode import Episode, list_episodes, read_episode, read_header
from world_model.train.snapshot import checksum

FORMATS = {
    "lerobot": ("world_model.train.data.lerobot", "LeRobotSource"),
    "rosbag": ("world_model.train.data.rosbag", "RosBagSource"),
}  # name in a description -> (module, dataclass)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One episode, read when its turn comes."""

    name: str  # its latents are stored under this name
    where: str  # for people
    key: str  # of its own content: another one whenever the pictures may differ
    read: Callable[[], Episode]


class Source(Protocol):
    """A set of episodes."""

    def entries(self, size: tuple[int, int]) -> list[Entry]:
        """All episodes in a fixed order, their frames of `size` (height, width). Decodes nothing yet.

        Raises EpisodeError, which names the file, for what cannot be read.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class EpisodeFolder:
    """Our own format, docs/episode_format.md. Taken as it is: pictures of another size are refused."""

    path: Path

    def entries(self, size: tuple[int, int]) -> list[Entry]:
        return [self._entry(folder, size) for folder in list_episodes(self.path)]

    def _entry(self, folder: Path, size: tuple[int, int]) -> Entry:
        header = read_header(folder, verify=False)
        got = header["height"], header["width"]
        if got != size:
            raise EpisodeError(f"{folder}: expected frames of {(*size, 3)}, got {(*got, 3)}")
        return Entry(
            name=f"{folder.parent.name}/{folder.name}",
            where=str(folder),
            key=checksum(folder / "episode.json"),
            read=lambda: read_episode(folder),
        )


def open_source(item: str) -> Source:
    """One item of a run's `data`. Raises InputError for a description that does not fit its format."""
    path = Path(item)
    return from_description(path, FORMATS) if is_description(path) else EpisodeFolder(path=path)


def open_entries(items: tuple[str, ...], size: tuple[int, int]) -> list[Entry]:
    """The episodes of all items of a run's `data`; EpisodeError when there are none."""
    entries = [entry for item in items for entry in open_source(item).entries(size)]
    if not entries:
        places = ", ".join(items) or "no folder at all"
        raise EpisodeError(f"expected episodes under {places}, found none (plain videos: sanawm annotate first)")
    return entries


def refuse_namesakes(entries: list[Entry]) -> None:
    """Raises EpisodeError where two episodes would be known by the same name."""
    places: dict[str, str] = {}
    for entry in entries:
        if entry.name in places:
            raise EpisodeError(
                f"expected episodes of different names, got {entry.name} twice: {places[entry.name]} and {entry.where}"
            )
        places[entry.name] = entry.where


def is_description(path: Path) -> bool:
    """Whether an item is a JSON file rather than a folder."""
    return path.suffix == ".json" and not path.is_dir()


def from_description(path: Path, formats: Mapping[str, tuple[str, str]]) -> Any:
    """The dataclass, out of `formats`, that a JSON file describes; its `path`-like fields relative to the file."""
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected a JSON file that describes a dataset: {error}") from error
    if not isinstance(values, dict) or values.get("format") not in formats:
        got = values.get("format") if isinstance(values, dict) else type(values).__name__
        raise InputError(f"{path}: expected an object with a format among {sorted(formats)}, got {got!r}")
    module, name = formats[values.pop("format")]
    kind = getattr(importlib.import_module(module), name)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    needed = {n for n, field in fields.items() if field.default is field.default_factory is dataclasses.MISSING}
    if not needed <= values.keys() <= fields.keys():
        raise InputError(
            f"{path}: expected the keys {sorted(needed)} and perhaps {sorted(fields.keys() - needed)}, "
            f"got {sorted(values)}"
        )
    for key, value in values.items():
        if fields[key].type is Path and isinstance(value, str):
            values[key] = path.parent / value
        elif isinstance(value, list):
            values[key] = tuple(value)
    try:
        return kind(**values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def optional_module(name: str, extra: str) -> ModuleType:
    """Import a package that only one format needs. Raises BackendError with the extra that brings it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise BackendError(f'expected {name} (pip install "sanawm-env[{extra}]"), got: {error}') from error
