"""Model folders: what comes back is what was saved, and nothing is loaded half."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from world_model.checkpoint import (
    build_parts,
    config_from_json,
    config_to_json,
    find,
    load_folder,
    save_folder,
)
from world_model.config import WorldConfig
from world_model.errors import CheckpointError, InputError
from world_model.model import WorldModel
from world_model.presets import nano, sana_wm, tiny_sana


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny model."""
    config, path = tiny_sana(), tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    save_folder(path, config, build_parts(config), torch.float32)
    return path


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoilt."""
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_a_folder_gives_back_the_model(folder: Path) -> None:
    config, parts = load_folder(folder)
    assert config == tiny_sana()
    torch.manual_seed(0)
    for part, expected in zip(parts, build_parts(config), strict=True):
        for name, tensor in expected.state_dict().items():
            assert torch.equal(part.state_dict()[name], tensor), name
    assert WorldModel.from_pretrained(folder).fingerprint == WorldModel.from_pretrained(str(folder)).fingerprint


def test_half_precision_weights_are_loaded_in_float32(tmp_path: Path) -> None:
    config = tiny_sana()
    save_folder(tmp_path, config, build_parts(config), torch.bfloat16)
    _, parts = load_folder(tmp_path)
    assert {tensor.dtype for part in parts for tensor in part.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("name", ["nano-xxl", "no/such/folder"])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match=rf"expected one of \[.*\] or a folder with config.json, got '{name}'"):
        find(name)
    with pytest.raises(CheckpointError, match=f"got '{name}'"):
        WorldModel.from_pretrained(name)


def spoil(change: Callable[[dict[str, Tensor]], None], file: Path) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("x_embedder.proj.bias"), "missing: x_embedder.proj.bias; unexpected: none"),
        (lambda t: t.update(surprise=torch.zeros(2)), "missing: none; unexpected: surprise"),
        (
            lambda t: t.update({"x_embedder.proj.bias": torch.zeros(3)}),
            r"wrong shapes: x_embedder.proj.bias: expected \(64,\), got \(3,\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(copied: Path, change: Callable, message: str) -> None:
    spoil(change, copied / "transformer.safetensors")
    with pytest.raises(CheckpointError, match=f"transformer.*{message}"):
        load_folder(copied)


@pytest.mark.parametrize("part", ["transformer", "tokenizer", "text"])
@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_a_truncated_file_is_refused(copied: Path, part: str, keep: int) -> None:
    file = copied / f"{part}.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=f"{part}.safetensors: expected a whole safetensors file, got"):
        load_folder(copied)


def test_a_missing_file_is_refused(copied: Path) -> None:
    (copied / "text.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"text.safetensors: expected a whole safetensors file, got"):
        load_folder(copied)


def test_a_broken_config_is_refused(copied: Path) -> None:
    (copied / "config.json").write_text("{nonsense")
    with pytest.raises(CheckpointError, match=r"config.json.*expected JSON, got '\{nonsense'"):
        load_folder(copied)


def test_parts_of_the_released_model_are_not_invented() -> None:
    with pytest.raises(CheckpointError, match=r"'nano' .*'words', got 'ltx2' and 'gemma2'"):
        build_parts(sana_wm())


@pytest.mark.parametrize("config", [nano(("a", "room")), tiny_sana(), sana_wm()], ids=lambda c: c.name)
def test_a_config_survives_json(config: WorldConfig) -> None:
    assert config_from_json(config_to_json(config)) == config


def edited(*path: str, value: object) -> str:
    values = dataclasses.asdict(tiny_sana())
    inner = values
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return json.dumps(values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "config: expected an object, got list"),
        ("{", "config: expected JSON, got '{'"),
        (edited("colour", value=1), r"unknown \['colour'\], missing \[\]"),
        (edited("transformer", "wings", value=2), r"config.transformer: .*unknown \['wings'\]"),
        (edited("transformer", "depth", value="four"), "config.transformer.depth: expected int, got 'four'"),
        (edited("transformer", "depth", value=True), "config.transformer.depth: expected int, got True"),
        (edited("transformer", "rms_envelope", value=1), "config.transformer.rms_envelope: expected bool, got 1"),
        (edited("transformer", value=[]), "config.transformer: expected an object, got list"),
        (edited("steps", value=[1000, "0"]), r"config.steps\[1\]: expected int, got '0'"),
        (edited("steps", value=[0, 1000]), r"strictly falling times .* got \(0, 1000\)"),
        (edited("steps", value=[1000, 500]), r"strictly falling times .* got \(1000, 500\)"),
        (edited("sink", value=3), "expected the 4 latents of the first chunk, got 3"),
        (edited("recent", value=4), "expected a multiple of block=3, got 4"),
        (edited("pending_start", value=False), "sink: expected the 1 latents"),
        (edited("first_plucker", value="guess"), r"first_plucker: expected one of \('hold', 'overlap'\), got 'guess'"),
        (edited("plucker_reference", value="end"), "plucker_reference: expected one of .*, got 'end'"),
        (edited("tokenizer", "height", value=65), "height: expected a multiple of spatial_stride=32, got 65"),
        (edited("tokenizer", "kind", value="jpeg"), "tokenizer kind: expected one of .*, got 'jpeg'"),
        (edited("text", "kind", value="braille"), "text kind: expected one of .*, got 'braille'"),
        (edited("text", "channels", value=17), "caption_channels: the transformer has 16, .* 17"),
        (edited("transformer", "plucker_channels", value=6), "plucker_channels: the transformer has 6, .* 48"),
    ],
)
def test_a_config_that_cannot_be_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        config_from_json(text)


def test_a_start_that_is_not_pending_cannot_look_ahead() -> None:
    with pytest.raises(InputError, match=r"first_plucker: expected one of \('hold',\), got 'overlap'"):
        dataclasses.replace(nano(), first_plucker="overlap")
