"""Snapshots that all workers write together, each its own parts of sharded tensors; any number of workers reads them.

The parts are torch.distributed.checkpoint's. Around them lies what every snapshot has: a folder that appears under its
name only when it is whole, with the checksum of each file.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from world_model.errors import CheckpointError
from world_model.train import distributed, snapshot


def write(root: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
    """Save ROOT/step_N; every worker must call it, and has to see the same ROOT."""
    import torch.distributed.checkpoint as dcp  # slow to import, and few runs need it

    temporary = distributed.of_first(lambda: snapshot.begin(root, step, "shared"))
    dcp.save(dict(tensors), checkpoint_id=temporary, no_dist=not dist.is_initialized())  # ends when all have written
    return distributed.of_first(lambda: snapshot.seal(temporary, root, step, sorted(temporary.iterdir()), state))


def are_in(folder: Path) -> bool:
    """Whether a snapshot was written so."""
    return (folder / ".metadata").exists()


def read(folder: Path, make: Callable[[str, torch.Size], Tensor]) -> dict[str, Tensor]:
    """Every tensor of a snapshot, read into the ones that `make(name, shape)` provides; every worker must call it.

    Raises CheckpointError when the snapshot can't be read, or holds what doesn't fit.
    """
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    try:
        stored = dcp.FileSystemReader(folder).read_metadata().state_dict_metadata
        tensors = {
            name: make(name, about.size) for name, about in stored.items() if isinstance(about, TensorStorageMetadata)
        }
        dcp.load(tensors, checkpoint_id=folder, no_dist=not dist.is_initialized())
    except (OSError, RuntimeError, ValueError, dcp.api.CheckpointException) as error:
        raise CheckpointError(f"{folder}: expected a whole snapshot of this configuration: {error}") from error
    return tensors
