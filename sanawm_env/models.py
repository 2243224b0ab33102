"""World models shared by all environments of a process: weights are read once for a folder and a device."""

import logging
from pathlib import Path

import torch

from world_model import checkpoint
from world_model.errors import BackendError, InputError
from world_model.model import WorldModel

log = logging.getLogger(__name__)
_Stamp = tuple[tuple[str, int, int], ...]
_loaded: dict[tuple[Path, str], tuple[_Stamp, WorldModel]] = {}


def shared_model(name: str | Path, device: str = "cpu") -> WorldModel:
    """The model of a shipped name or a folder, read from disk unless this process holds it.

    A folder whose files have changed since is read again. Raises CheckpointError, InputError for what is no device,
    BackendError for a device that is not here.
    """
    folder = checkpoint.find(name).resolve()
    place = find_device(device)
    stamp = _stamp(folder)
    held = _loaded.get((folder, str(place)))
    if held is None or held[0] != stamp:
        log.info("reading %s onto %s", folder, place)
        held = stamp, WorldModel.from_pretrained(folder, place)
        _loaded[folder, str(place)] = held
    return held[1]


def find_device(device: str) -> torch.device:
    """The torch device of a name, if it is one and is here."""
    try:
        place = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device: expected a torch device such as 'cpu' or 'cuda:0', got {device!r}") from error
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise BackendError(f"device: expected one of {torch.cuda.device_count()} CUDA devices, got {device!r}")
    return place


def _stamp(folder: Path) -> _Stamp:
    """What tells one version of a folder from the next without reading it."""
    files = [path for path in sorted(folder.iterdir()) if path.suffix in (".json", ".safetensors")]
    return tuple((path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in files)
