"""The released SANA-WM weights: the diffusers layout, the original layout, and a converter from either to the first.

The two differ in a few names. Training checkpoints (`.pt`) wrap the served weights among a critic and optimizers
(stage-1 architecture, 14). What this model has no use for is listed in `ignored_keys`; all else must fit.
"""

import dataclasses
import json
import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from world_model.config import TransformerConfig
from world_model.errors import CheckpointError
from world_model.transformer import SanaWM
from world_model.weights import check_names, listed, load_strictly, read_safetensors, write_safetensors

WRAPPERS = ("generator", "generator_ema", "model", "state_dict")  # the first that is present is served
RENAMES = {"t_embedder.mlp.0.": "t_embedder.linear_1.", "t_embedder.mlp.2.": "t_embedder.linear_2."}
ONLY_ORIGINAL = ("pos_embed", "y_embedder.y_embedding")  # all zeros; the training run's null caption
UNUSED_GATES = ("beta_proj.weight", "beta_proj.bias", "gate_proj.weight", "gate_proj.bias", "A_log", "dt_bias")
REMAP_BYTES = 1 << 30  # a mapped file is opened anew after so much of it was read, which lets go of its pages


def ignored_keys(cfg: TransformerConfig) -> set[str]:
    """Released tensors that no forward reads: remains of earlier variants, and gates of blocks that mix by softmax."""
    softmax = [i for i in range(cfg.depth) if cfg.is_softmax(i)]
    return {
        *ONLY_ORIGINAL,
        "raymap_embedder.proj.weight",
        "raymap_embedder.proj.bias",
        *(f"blocks.{i}.attn.recall_gate" for i in range(cfg.depth)),
        *(f"blocks.{i}.attn.{name}" for i in softmax for name in UNUSED_GATES),
    }


def load_released(transformer: SanaWM, path: str | Path) -> None:
    """Fill a transformer from a safetensors file, a diffusers folder (sharded or not) or a `.pt` checkpoint.

    Raises CheckpointError for a broken file and for missing, unexpected and misshapen keys.
    """
    ignored = ignored_keys(transformer.cfg)
    tensors = {name: tensor for name, tensor in read_released(path).items() if name not in ignored}
    load_strictly(transformer, tensors, str(path))


def read_released(path: str | Path) -> dict[str, Tensor]:
    """The served weights under their diffusers names, mapped from disk: nothing is read before it is used."""
    path = Path(path)
    if path.is_dir():
        tensors = _read_folder(path)
    elif path.suffix in (".pt", ".pth"):
        tensors = _unwrap(_read_pickle(path), path)
    else:
        tensors = read_safetensors(path)
    return diffusers_names(tensors, path)


def convert(source: str | Path, target: str | Path, dtype: torch.dtype = torch.bfloat16) -> None:
    """Write the served weights of any released layout to one safetensors file in the diffusers layout.

    Tensor by tensor, so that memory does not grow with the file. Shows a progress bar. Raises CheckpointError for
    what `load_released` raises it for, shapes excepted.
    """
    tensors = {name: tensor for name, tensor in read_released(source).items() if name not in ONLY_ORIGINAL}
    depth = 1 + max(
        (int(found[1]) for found in (re.match(r"blocks\.(\d+)\.", n) for n in tensors) if found), default=-1
    )
    if depth == 0:
        raise CheckpointError(f"{source}: expected the keys of a SANA-WM transformer, got {listed(tensors)}")
    small = dataclasses.replace(TransformerConfig(), depth=depth, heads=1, head_dim=8)  # only its names matter
    with torch.device("meta"):
        expected = SanaWM(small).state_dict().keys()
    check_names(expected, tensors.keys() - ignored_keys(small), str(source))
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    size = sum(tensor.numel() for tensor in tensors.values()) * dtype.itemsize
    del tensors
    with tqdm(total=size, unit="B", unit_scale=True, desc=Path(target).name) as bar:
        write_safetensors(Path(target), shapes, _one_by_one(Path(source), list(shapes), dtype, bar), dtype)


def _one_by_one(source: Path, names: list[str], dtype: torch.dtype, bar: tqdm) -> Iterator[Tensor]:
    mapped, read = read_released(source), 0
    for name in names:
        if read > REMAP_BYTES:
            mapped, read = read_released(source), 0
        tensor = mapped[name].to(dtype)
        yield tensor
        read += mapped[name].nbytes
        bar.update(tensor.nbytes)


def _read_folder(folder: Path) -> dict[str, Tensor]:
    """All shards of a diffusers model folder, or of the `transformer` of a pipeline folder."""
    if (folder / "transformer").is_dir():
        folder = folder / "transformer"
    indices = sorted(folder.glob("*.safetensors.index.json"))
    if len(indices) > 1:
        raise CheckpointError(f"{folder}: expected one index of shards, got {listed([p.name for p in indices])}")
    if not indices:
        files = sorted(folder.glob("*.safetensors"))
        if len(files) != 1:
            found = listed([p.name for p in files])
            raise CheckpointError(f"{folder}: expected one safetensors file or an index of shards, got {found}")
        return read_safetensors(files[0])
    try:
        shards: dict[str, str] = json.loads(indices[0].read_text())["weight_map"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{indices[0]}: expected JSON with a weight_map, got: {error!r}") from error
    tensors = {}
    for shard in sorted(set(shards.values())):
        tensors |= read_safetensors(folder / shard)
    check_names(shards.keys(), tensors.keys(), str(indices[0]))
    return tensors


def _read_pickle(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise CheckpointError(f"{path}: expected a whole checkpoint of torch.save, got: {error}") from error


def _unwrap(content: object, path: Path) -> dict[str, Tensor]:
    """The served weights among whatever else a training checkpoint holds."""
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: expected a dictionary, got {type(content).__name__}")
    inner = next((content[name] for name in WRAPPERS if name in content), content)
    if not isinstance(inner, Mapping) or not inner or not all(isinstance(v, Tensor) for v in inner.values()):
        raise CheckpointError(
            f"{path}: expected tensors, or one of {', '.join(WRAPPERS)} with tensors in it, got {listed(content)}"
        )
    return dict(inner)


def diffusers_names(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in tensors.items():
        new = name.removeprefix("model.")
        for old, current in RENAMES.items():
            new = current + new.removeprefix(old) if new.startswith(old) else new
        if new in renamed:
            raise CheckpointError(f"{path}: expected one tensor a name, got two for {new}")
        renamed[new] = tensor
    return renamed
