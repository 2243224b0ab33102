"""Tensors and run state on disk: in parts that stay small, written whole or not at all, checked when read."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from world_model.errors import CheckpointError

log = logging.getLogger(__name__)

PART_BYTES = 15 * 2**20  # below the 16 MiB that many channels take for one file
MANIFEST = "state.json"


def write_file(path: Path, data: bytes) -> None:
    """Write `data` so that a reader sees the old file or the new one, never half of either."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_bytes(data)
    os.replace(part, path)


def write_tensors(folder: Path, stem: str, tensors: Mapping[str, Tensor], limit: int = PART_BYTES) -> list[Path]:
    """Save as `STEM.safetensors`, or as `STEM-00001-of-0000N.safetensors` when larger than `limit` bytes."""
    parts = list(_parts(tensors, limit))
    paths = []
    for index, part in enumerate(parts, 1):
        suffix = "" if len(parts) == 1 else f"-{index:05d}-of-{len(parts):05d}"
        path = folder / f"{stem}{suffix}.safetensors"
        temporary = path.with_name(f".{path.name}")
        save_file(part, temporary)
        os.replace(temporary, path)
        paths.append(path)
    return paths


def read_tensors(folder: Path, stem: str) -> dict[str, Tensor]:
    """What `write_tensors` wrote. Raises CheckpointError when a part is missing or broken."""
    paths = sorted(folder.glob(f"{stem}.safetensors")) or sorted(folder.glob(f"{stem}-*-of-*.safetensors"))
    if not paths:
        raise CheckpointError(f"expected {folder}/{stem}.safetensors or its numbered parts, found neither")
    expected = int(paths[0].stem.rsplit("-", 1)[-1]) if "-of-" in paths[0].name else 1
    if len(paths) != expected:
        raise CheckpointError(f"{folder}/{stem}: expected {expected} parts, found {len(paths)}")
    tensors: dict[str, Tensor] = {}
    for path in paths:
        try:
            tensors.update(load_file(path))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: expected a whole safetensors file: {error}") from error
    return tensors


def write_snapshot(root: Path, step: int, groups: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> Path:
    """Save one resumable moment as ROOT/step_N: groups of tensors, a JSON state, and the checksum of each file."""
    temporary = begin(root, step, str(os.getpid()))
    files = [path for stem, tensors in groups.items() for path in write_tensors(temporary, stem, tensors)]
    return seal(temporary, root, step, files, state)


def begin(root: Path, step: int, writer: str) -> Path:
    """An empty folder to write a snapshot in."""
    temporary = root / f".step_{step:08d}.{writer}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    return temporary


def seal(temporary: Path, root: Path, step: int, files: Iterable[Path], state: Mapping[str, Any]) -> Path:
    """Enter the files' checksums, and give the folder its name: ROOT/step_N."""
    manifest = {"step": step, "state": dict(state), "sha256": {path.name: checksum(path) for path in files}}
    write_file(temporary / MANIFEST, json.dumps(manifest, indent=1).encode())
    final = root / f"step_{step:08d}"
    shutil.rmtree(final, ignore_errors=True)
    os.replace(temporary, final)
    return final


def check(folder: Path) -> dict[str, Any]:
    """The state of a snapshot, with its "step". Raises CheckpointError when a file of it is missing or changed."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        state = {**manifest["state"], "step": manifest["step"]}
        expected = manifest["sha256"]
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / MANIFEST}: expected the list of a whole snapshot: {error!r}") from error
    for name, digest in expected.items():
        path = folder / name
        found = checksum(path) if path.exists() else "no file"
        if found != digest:
            raise CheckpointError(f"{path}: expected sha256 {digest}, got {found}")
    return state


def read_groups(folder: Path, stems: tuple[str, ...]) -> dict[str, dict[str, Tensor]]:
    """Groups of tensors of a snapshot that was checked. Raises CheckpointError when one is missing."""
    return {stem: read_tensors(folder, stem) for stem in stems}


def snapshots(root: Path) -> list[Path]:
    """Snapshot folders under `root`, newest first."""
    return sorted(root.glob("step_*"), reverse=True)


def newest(root: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest whole snapshot and its state, or None when there never was one; broken ones are passed over, with a
    warning.

    Raises CheckpointError when there are snapshots and none is whole.
    """
    found = snapshots(root)
    for folder in found:
        try:
            return folder, check(folder)
        except CheckpointError as error:
            log.warning("snapshot %s is broken, going back one: %s", folder, error)
    if found:
        raise CheckpointError(f"{root}: expected a whole snapshot, all {len(found)} are broken")
    return None


def prune(root: Path, keep: int) -> None:
    """Delete all but the newest `keep` snapshots, and what killed writers left."""
    for folder in [*snapshots(root)[keep:], *root.glob(".step_*")]:
        shutil.rmtree(folder)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Weights to start from: a .safetensors file, or a snapshot (its EMA weights).

    Raises CheckpointError when `path` is neither, or broken.
    """
    if path.is_dir():
        check(path)
        return read_tensors(path, "ema")
    if path.suffix != ".safetensors" or not path.exists():
        raise CheckpointError(f"init: expected a .safetensors file or a snapshot folder, got {path}")
    return read_tensors(path.parent, path.stem)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """A digest of names and values."""
    known = hashlib.sha256()
    for name in sorted(tensors):
        known.update(name.encode())
        known.update(tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return known.hexdigest()


def checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parts(tensors: Mapping[str, Tensor], limit: int) -> Iterator[dict[str, Tensor]]:
    part: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        if part and size + tensor.nbytes > limit:
            yield part
            part, size = {}, 0
        part[name] = tensor
        size += tensor.nbytes
    yield part
