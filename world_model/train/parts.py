"""A folder of tensors that are made part by part and not again: what a teacher passed through, what a model played.

`index.json` names every part with its checksum, and what all of them have in common. Whoever makes part i from i alone
goes on, after a kill, where it was.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from world_model.errors import CheckpointError, InputError
from world_model.train import snapshot

INDEX = "index.json"


def open_index(out: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """The index of OUT, new or begun. Raises CheckpointError when its parts were made from something else."""
    about = json.loads(json.dumps(about))  # as it is read back: tuples are lists
    if not (out / INDEX).exists():
        out.mkdir(parents=True, exist_ok=True)
        return {**about, "parts": []}
    index = read_index(out)
    for key, expected in about.items():
        if index.get(key) != expected:
            raise CheckpointError(f"{out / INDEX}: expected parts with {key} {expected}, got {index.get(key)}")
    _names(out, index)
    return index


def add_part(out: Path, index: dict[str, Any], tensors: Mapping[str, Tensor], ids: tuple[str, ...]) -> None:
    """Write the next part (all tensors have one row a clip) and enter it, and where its clips come from, into OUT's
    index."""
    clips = len(next(iter(tensors.values())))
    if len(ids) != clips:
        raise InputError(f"part: expected the names of {clips} clips, got {len(ids)}")
    (path,) = snapshot.write_tensors(out, f"part-{len(index['parts']):05d}", tensors, limit=2**62)
    about = {"file": path.name, "sha256": snapshot.checksum(path), "clips": clips, "ids": list(ids)}
    index["parts"].append(about)
    snapshot.write_file(out / INDEX, json.dumps(index, indent=1).encode())


def read_index(folder: Path) -> dict[str, Any]:
    """Raises CheckpointError when there is none."""
    try:
        return json.loads((folder / INDEX).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{folder / INDEX}: expected the index of a folder of parts: {error}") from error


def read_ids(folder: Path) -> tuple[str, ...]:
    """Where every clip comes from. Raises CheckpointError for parts of earlier versions, which did not say."""
    return _names(folder, read_index(folder))


def _names(folder: Path, index: Mapping[str, Any]) -> tuple[str, ...]:
    if not all("ids" in part for part in index["parts"]):
        raise CheckpointError(
            f"{folder / INDEX}: expected parts that name their clips, got those of an earlier version: "
            "make them again, in a new folder"
        )
    return tuple(name for part in index["parts"] for name in part["ids"])


def read_parts(folder: Path) -> dict[str, Tensor]:
    """The tensors of all parts, joined. Raises CheckpointError for a part that is missing or changed, or for none."""
    parts = []
    for part in read_index(folder)["parts"]:
        path = folder / part["file"]
        found = snapshot.checksum(path) if path.exists() else "no file"
        if found != part["sha256"]:
            raise CheckpointError(f"{path}: expected sha256 {part['sha256']}, got {found}")
        parts.append(load_file(path))
    if not parts:
        raise CheckpointError(f"{folder}: expected parts, found none")
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
