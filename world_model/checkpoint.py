"""Weights on disk: folders of this package, the released layouts, and nothing that is loaded half.

A model folder holds config.json, transformer.safetensors, tokenizer.safetensors and text.safetensors.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, get_type_hints

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from world_model.config import WorldConfig
from world_model.errors import CheckpointError, InputError
from world_model.text import WordEncoder
from world_model.transformer import SanaWM
from world_model.vae import VideoTokenizer

ASSETS = Path(__file__).parent / "assets"
PARTS = ("transformer", "tokenizer", "text")


def find(name: str | Path) -> Path:
    """The folder of a shipped model or of the user's own. Raises CheckpointError with what there is."""
    shipped = sorted(p.name for p in ASSETS.iterdir() if (p / "config.json").exists()) if ASSETS.exists() else []
    for folder in (ASSETS / str(name) if str(name) in shipped else Path(name),):
        if (folder / "config.json").exists():
            return folder
    raise CheckpointError(f"model: expected one of {shipped} or a folder with config.json, got {str(name)!r}")


def build_parts(config: WorldConfig) -> tuple[SanaWM, VideoTokenizer, WordEncoder]:
    """The parts of a model with fresh weights. Raises CheckpointError for parts that this package can't build."""
    if config.tokenizer.kind != "nano" or config.text.kind != "words":
        raise CheckpointError(
            f"expected a tokenizer of kind 'nano' and text of kind 'words', got {config.tokenizer.kind!r} and "
            f"{config.text.kind!r}: the released VAE and text encoder are not part of this version"
        )
    return SanaWM(config.transformer), VideoTokenizer(config.tokenizer), WordEncoder(config.text)


def load_folder(folder: Path) -> tuple[WorldConfig, tuple[SanaWM, VideoTokenizer, WordEncoder]]:
    """Config and weights, in float32. Raises CheckpointError for a missing, broken or mismatched file."""
    try:
        config = config_from_json((folder / "config.json").read_text())
    except (OSError, InputError) as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error}") from error
    parts = build_parts(config)
    for name, part in zip(PARTS, parts, strict=True):
        load_strictly(part, read_safetensors(folder / f"{name}.safetensors"), str(folder / name))
    return config, parts


def save_folder(
    folder: Path, config: WorldConfig, parts: tuple[SanaWM, VideoTokenizer, WordEncoder], dtype: torch.dtype
) -> None:
    """Write a model folder, weights in `dtype`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config_to_json(config))
    for name, part in zip(PARTS, parts, strict=True):
        tensors = {k: v.detach().to(dtype).contiguous() for k, v in part.state_dict().items()}
        save_file(tensors, folder / f"{name}.safetensors")


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a file, or CheckpointError if it is missing or truncated."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: expected a whole safetensors file, got: {error}") from error


def load_strictly(module: torch.nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Copy tensors into a module. Raises CheckpointError naming missing, extra and misshapen keys."""
    own = module.state_dict()
    missing, extra = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    shapes = [
        f"{k}: expected {tuple(own[k].shape)}, got {tuple(tensors[k].shape)}"
        for k in own.keys() & tensors.keys()
        if own[k].shape != tensors[k].shape
    ]
    if missing or extra or shapes:
        raise CheckpointError(
            f"{where}: missing keys {missing}; unexpected keys {extra}; wrong shapes {sorted(shapes)}"
        )
    module.load_state_dict(tensors, strict=True)


def config_to_json(config: WorldConfig) -> str:
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def config_from_json(text: str) -> WorldConfig:
    """The exact inverse of `config_to_json`. Raises InputError on malformed JSON, missing or unknown keys."""
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"config: expected JSON, got {text[:40]!r}: {error}") from error
    return _build(WorldConfig, values, "config")


def _build(kind: type, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise InputError(f"{where}: expected an object, got {type(values).__name__}")
    hints = get_type_hints(kind)
    unknown, missing = sorted(values.keys() - hints.keys()), sorted(hints.keys() - values.keys())
    if unknown or missing:
        raise InputError(f"{where}: expected keys {sorted(hints)}, got unknown {unknown}, missing {missing}")
    built = {}
    for name, hint in hints.items():
        value = values[name]
        if dataclasses.is_dataclass(hint):
            value = _build(hint, value, f"{where}.{name}")  # pyright: ignore[reportArgumentType]
        built[name] = tuple(value) if isinstance(value, list) else value
    return kind(**built)
