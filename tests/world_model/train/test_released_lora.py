"""Fine-tuning of the released model's kind, in small: zipped latents, text read beforehand, no tokenizer."""

import dataclasses
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from world_model.checkpoint import config_from_json, config_to_json
from world_model.config import WorldConfig
from world_model.errors import CheckpointError, InputError
from world_model.presets import sana_wm, tiny_sana
from world_model.released import load_released
from world_model.train import snapshot
from world_model.train.__main__ import parse
from world_model.train.data.latents import open_latents
from world_model.train.data.text_features import TextFeatures
from world_model.train.flow import train
from world_model.train.flow_model import FlowModel, FlowRun, batch_of
from world_model.train.initialise import initialise
from world_model.train.loop import RunConfig, generator
from world_model.train.measure import measure_losses
from world_model.transformer import SanaWM

RECIPE = Path(__file__).parents[3] / "world_model" / "train" / "recipes" / "released_lora.json"
KEYS, LATENTS = ("a", "b", "c"), 7


def world() -> WorldConfig:
    """`tiny_sana()` with the parts that this package can't build, and half of its blocks."""
    tiny = tiny_sana()
    small = dataclasses.replace(tiny.transformer, depth=2, heads=1, head_dim=16, softmax_every=2)
    tokenizer = dataclasses.replace(tiny.tokenizer, kind="ltx2")
    text = dataclasses.replace(tiny.text, kind="gemma2", vocabulary=())
    return dataclasses.replace(tiny, transformer=small, tokenizer=tokenizer, text=text)


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`clips.json` and the archives that it describes, `text.safetensors`, `world.json`, `weights.safetensors`."""
    root, config = tmp_path_factory.mktemp("released"), world()
    frames = 1 + (LATENTS - 1) * config.tokenizer.temporal_stride
    noise = np.random.default_rng(0)
    pose = np.tile(np.eye(4, dtype=np.float32), (len(KEYS) * frames, 1, 1))
    pose[:, 2, 3] = 0.05 * np.arange(len(pose))
    (root / "raw").mkdir()
    (root / "cache").mkdir()
    with zipfile.ZipFile(root / "raw" / "walk.zip", "w") as raw, zipfile.ZipFile(root / "cache" / "walk.zip", "w") as z:
        for key in KEYS:
            raw.writestr(f"{key}.json", json.dumps({"width": 96, "height": 64, "prompt": f"street {key}"}))
            z.writestr(f"{key}.npz", npz(z=noise.standard_normal((8, LATENTS, 2, 3)).astype(np.float16)))
    ranges = np.array([(i * frames, frames) for i in range(len(KEYS))])
    lens = np.tile(np.float32([70, 70, 48, 32]), (len(pose), 1))
    camera = npz(ids=np.array(KEYS), ranges=ranges, pose=pose, intrinsics=lens)
    (root / "raw" / "walk_camera.npz").write_bytes(camera)
    about = {"format": "zip-latents", "raw": "raw", "cache": "cache", "min_bytes": 1}
    (root / "clips.json").write_text(json.dumps(about))
    text = {
        f"street {key}": torch.randn(2 + i, 16, generator=generator(i, 0, "t")).bfloat16() for i, key in enumerate(KEYS)
    }
    save_file(text, root / "text.safetensors")
    (root / "world.json").write_text(config_to_json(config))
    torch.manual_seed(1)
    transformer = SanaWM(config.transformer)
    initialise(transformer)
    for weight in transformer.parameters():  # no path through it is silent; values as bfloat16 holds them
        weight.data = (weight.data + 0.05 * torch.randn_like(weight)).bfloat16().float()
    save_file(transformer.state_dict(), root / "weights.safetensors")
    return root


def flow_run(root: Path, out: Path, steps: int, *, init: str = "", **changes) -> FlowRun:
    run = RunConfig(
        out=str(out),
        steps=steps,
        batch=1,
        lr=1e-2,
        warmup=0,
        ema=0.5,
        log_every=1,
        save_minutes=0.0,
        dtype="bfloat16",
        init=init or str(root / "weights.safetensors"),
        recompute=True,
    )
    settings = {"mode": "chunk_causal", "shift": 9.95, "lora_rank": 2, "frozen_dtype": "bfloat16"} | changes
    return FlowRun(
        run=run,
        world=str(root / "world.json"),
        data=str(root / "clips.json"),
        validation=str(root / "clips.json"),
        text=str(root / "text.safetensors"),
        latents=LATENTS,
        validation_clips=2,
        validation_latents=LATENTS,
        **settings,
    )


def lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("mode", ["chunk_causal", "bidirectional"])
def test_low_rank_updates_train_resume_export_and_load(root: Path, tmp_path: Path, mode: str) -> None:
    train(flow_run(root, tmp_path / "cut", 2, mode=mode))
    train(flow_run(root, tmp_path / "cut", 3, mode=mode))
    train(flow_run(root, tmp_path / "whole", 3, mode=mode))
    logged = [line for line in lines(tmp_path / "cut") if "loss" in line]
    assert [line["step"] for line in logged] == [1, 2, 3]
    assert all(np.isfinite(line["loss"]) and line["gradient_norm"] > 0 for line in logged)
    held_out = lines(tmp_path / "cut")[-1]
    assert {"validation_loss_1000", "validation_loss_750", "validation_loss_400"} <= held_out.keys()
    cut, whole = (load_file(tmp_path / run / "export" / "transformer.safetensors") for run in ("cut", "whole"))
    assert all(torch.equal(cut[name], weight) for name, weight in whole.items())

    # what was measured on the trained model with its updates apart, the exported weights alone give again
    loaded = FlowModel(world(), torch.ones(8), TextFeatures(world().text, root / "text.safetensors"))
    load_released(loaded.transformer, tmp_path / "cut" / "export")
    held = open_latents(root / "clips.json")
    fixed = batch_of(held, loaded.text, 2, LATENTS, generator(0, 0, "held-out"), 0.0).tensors
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        again = measure_losses(loaded, fixed, mode)
    assert again == {name.removeprefix("validation_"): held_out[name] for name in held_out if "validation_" in name}
    begun = load_file(root / "weights.safetensors")
    moved = {name for name, weight in cut.items() if not torch.equal(weight, begun[name])}
    assert "blocks.0.attn.qkv.weight" in moved
    assert not [name for name in moved if "attn" not in name and "mlp" not in name]
    assert config_from_json((tmp_path / "cut" / "export" / "config.json").read_text()) == world()


def test_snapshots_leave_frozen_weights_out_and_know_which(root: Path, tmp_path: Path) -> None:
    train(flow_run(root, tmp_path, 1))
    (folder,) = snapshot.snapshots(tmp_path / "snapshots")
    for stem in ("model", "ema"):
        names = snapshot.read_tensors(folder, stem)
        assert names
        assert all(name.endswith((".up", ".down")) for name in names)
        assert {x.dtype for x in names.values()} == {torch.float32}
    other = {name: weight + 1 for name, weight in load_file(root / "weights.safetensors").items()}
    save_file(other, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="expected snapshots above the frozen weights of this run, "):
        train(flow_run(root, tmp_path, 2, init=str(tmp_path / "other.safetensors")))
    with pytest.raises(CheckpointError, match="above the frozen weights of this run, none, got some above"):
        train(flow_run(root, tmp_path, 2, lora_rank=0, frozen_dtype="float32"))


def test_training_goes_on_from_an_export_and_from_a_snapshot_of_all_weights(root: Path, tmp_path: Path) -> None:
    train(flow_run(root, tmp_path / "first", 1))
    export = tmp_path / "first" / "export"
    everything = {"lora_rank": 0, "frozen_dtype": "float32"}
    train(flow_run(root, tmp_path / "second", 1, init=str(export), **everything))
    (folder,) = snapshot.snapshots(tmp_path / "second" / "snapshots")
    train(flow_run(root, tmp_path / "third", 1, init=str(folder), **everything))
    for name in ("second", "third"):
        now = load_file(tmp_path / name / "export" / "transformer.safetensors")
        moved = max(
            float((now[x] - weight).abs().max()) for x, weight in load_file(export / "transformer.safetensors").items()
        )
        assert 0 < moved < 0.05  # a step or two from there, not a new start


def test_captions_without_features_are_named_before_training(root: Path, tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    text = load_file(root / "text.safetensors")
    for name in ("street a", "street b"):
        save_file({name: text[name]}, tmp_path / "text" / f"{name[-1]}.safetensors")
    run = dataclasses.replace(flow_run(root, tmp_path / "out", 1), text=str(tmp_path / "text"))
    with pytest.raises(InputError, match="features of every caption, got 2 captions without 'street c'"):
        train(run)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": ""}, "expected text features and no tokenizer for a world whose text is of kind 'gemma2'"),
        ({"tokenizer": "somewhere"}, "got tokenizer 'somewhere' and text "),
        ({"text": "nowhere.safetensors"}, "nowhere.safetensors: expected whole safetensors files"),
        ({"mode": "streaming"}, "expected a config with block=1"),
    ],
)
def test_what_does_not_fit_is_refused(root: Path, tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises((InputError, CheckpointError), match=message):
        train(dataclasses.replace(flow_run(root, tmp_path, 1), **changes))


def test_weights_in_bfloat16_need_updates_and_autocast(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"frozen_dtype: expected 'float32', or .*, got 'bfloat16' with 0"):
        flow_run(root, tmp_path, 1, lora_rank=0)
    with pytest.raises(InputError, match="got 'float16' with 2, 'bfloat16' and False"):
        flow_run(root, tmp_path, 1, frozen_dtype="float16")


def test_latents_of_another_size_are_refused(root: Path, tmp_path: Path) -> None:
    wide = dataclasses.replace(world(), tokenizer=dataclasses.replace(world().tokenizer, width=128))
    (tmp_path / "world.json").write_text(config_to_json(wide))
    run = dataclasses.replace(flow_run(root, tmp_path / "out", 1), world=str(tmp_path / "world.json"))
    with pytest.raises(InputError, match=r"clips: expected .*\(8, 2, 4\), 49\), got \(\(8, 2, 3\), 49\)"):
        train(run)


def test_the_recipe_is_of_the_released_model() -> None:
    run = parse(FlowRun, ["--config", str(RECIPE)])
    assert run.world == sana_wm().name
    assert (run.mode, run.latents, run.shift, run.start_clean) == ("chunk_causal", 43, 9.95, 0.9)
    assert (run.lora_rank, run.frozen_dtype, run.run.dtype, run.run.recompute) == (32, "bfloat16", "bfloat16", True)
