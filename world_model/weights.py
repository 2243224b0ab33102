"""Tensors and files: read mapped, written one at a time, loaded into a module strictly or not at all."""

import json
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from world_model.errors import CheckpointError

STORED_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}  # names in the file format


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a file, mapped: a page is read when it is used. CheckpointError if missing or truncated."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: expected a whole safetensors file, got: {error}") from error


def write_safetensors(
    path: Path, shapes: Mapping[str, Collection[int]], tensors: Iterable[Tensor], dtype: torch.dtype
) -> None:
    """A safetensors file of tensors that come one by one, in the order of `shapes`, each dropped once written.

    The library's own writer wants all of them in memory. The file appears under its name only when it is whole.
    """
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + torch.Size(shape).numel() * dtype.itemsize
        header[name] = {"dtype": STORED_DTYPES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)  # the data starts aligned
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for (name, shape), tensor in zip(shapes.items(), tensors, strict=True):
                if tensor.shape != torch.Size(shape):
                    raise CheckpointError(f"{name}: expected {tuple(shape)}, got {tuple(tensor.shape)}")
                file.write(tensor.to(dtype).contiguous().reshape(-1).view(torch.uint8).numpy().data)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def load_strictly(module: torch.nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Copy tensors into a module. Raises CheckpointError naming missing, unexpected and misshapen keys."""
    own = module.state_dict()
    check_names(own.keys(), tensors.keys(), where)
    shapes = [
        f"{name}: expected {tuple(own[name].shape)}, got {tuple(tensor.shape)}"
        for name, tensor in tensors.items()
        if own[name].shape != tensor.shape
    ]
    if shapes:
        raise CheckpointError(f"{where}: wrong shapes: {listed(shapes)}")
    module.load_state_dict(tensors, strict=True)


def check_names(expected: Collection[str], got: Collection[str], where: str) -> None:
    """Raises CheckpointError unless both are the same set."""
    missing, unexpected = sorted(set(expected) - set(got)), sorted(set(got) - set(expected))
    if missing or unexpected:
        raise CheckpointError(
            f"{where}: expected {len(expected)} keys, got {len(got)}; "
            f"missing: {listed(missing)}; unexpected: {listed(unexpected)}"
        )


def listed(items: Collection[str], most: int = 8) -> str:
    """The first few, and how many more: a wrong file may hold thousands of keys."""
    more = [f"and {len(items) - most} more"] if len(items) > most else []
    return ", ".join([*list(items)[:most], *more]) or "none"
