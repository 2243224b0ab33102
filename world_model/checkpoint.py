"""Models on disk: a folder of config.json, transformer.safetensors, tokenizer.safetensors and text.safetensors.

Nothing is loaded half. As a program it converts released weights, whose layouts world_model.released knows:

    python -m world_model.checkpoint convert sana_dit/model.pt transformer.safetensors
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import torch
from safetensors.torch import save_file

from world_model.config import WorldConfig
from world_model.errors import CheckpointError, InputError
from world_model.released import convert
from world_model.text import WordEncoder
from world_model.transformer import SanaWM
from world_model.vae import VideoTokenizer
from world_model.weights import load_strictly, read_safetensors

ASSETS = Path(__file__).parent / "assets"
PARTS = ("transformer", "tokenizer", "text")


def find(name: str | Path) -> Path:
    """The folder of a shipped model or of the user's own. Raises CheckpointError with what there is."""
    shipped = sorted(p.name for p in ASSETS.iterdir() if (p / "config.json").exists()) if ASSETS.exists() else []
    folder = ASSETS / str(name) if str(name) in shipped else Path(name)
    if not (folder / "config.json").exists():
        raise CheckpointError(f"model: expected one of {shipped} or a folder with config.json, got {str(name)!r}")
    return folder


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
    config = load_config(folder)
    parts = build_parts(config)
    for name, part in zip(PARTS, parts, strict=True):
        load_strictly(part, read_safetensors(folder / f"{name}.safetensors"), str(folder / name))
    return config, parts


def load_config(folder: Path) -> WorldConfig:
    """The config of a model folder. Raises CheckpointError when it is missing or not a config."""
    path = folder / "config.json"
    try:
        return config_from_json(path.read_text())
    except (OSError, InputError) as error:
        raise CheckpointError(f"{path}: expected a model's config, got: {error}") from error


def save_folder(
    folder: Path, config: WorldConfig, parts: tuple[SanaWM, VideoTokenizer, WordEncoder], dtype: torch.dtype
) -> None:
    """Write a model folder, weights in `dtype`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config_to_json(config))
    for name, part in zip(PARTS, parts, strict=True):
        tensors = {k: v.detach().to(dtype).contiguous() for k, v in part.state_dict().items()}
        save_file(tensors, folder / f"{name}.safetensors")


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
    return kind(**{name: _field(hint, values[name], f"{where}.{name}") for name, hint in hints.items()})


def _field(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, where)  # pyright: ignore[reportArgumentType]
    if get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_field(get_args(hint)[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise InputError(f"{where}: expected {hint.__name__}, got {value!r}")
    return value


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m world_model.checkpoint", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("convert", help="released weights to one safetensors file, served weights only")
    command.add_argument("source", type=Path, help=".safetensors, .pt, .pth or a diffusers folder")
    command.add_argument("target", type=Path, help="the safetensors file to write")
    command.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16")
    given = parser.parse_args(arguments)
    try:
        convert(given.source, given.target, getattr(torch, given.dtype))
    except CheckpointError as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
