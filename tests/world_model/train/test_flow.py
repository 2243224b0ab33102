"""The flow run from episodes on disk to a folder that plays: it trains, rolls out, exports and continues."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.world_model.train.toy_world import SIDE, random_flow_model, toy
from world_model.checkpoint import config_to_json
from world_model.dynamics import new_worlds
from world_model.errors import CheckpointError, InputError
from world_model.model import WorldModel
from world_model.train.data.latents import open_latents
from world_model.train.flow import train
from world_model.train.flow_model import FlowModel, FlowRun, batch_of, rollout_share
from world_model.train.loop import RunConfig, generator
from world_model.train.losses import flow_loss
from world_model.train.measure import made_after_truth, made_alone, measure
from world_model.train.rollout import rollout
from world_model.vae import VideoTokenizer


def flow_run(folder: Path, out: Path, steps: int, **changes) -> FlowRun:
    run = RunConfig(out=str(out), steps=steps, batch=2, lr=1e-3, warmup=0, log_every=1, **changes)
    return FlowRun(
        run=run,
        world=str(folder / "model" / "config.json"),
        tokenizer=str(folder / "tokenizer"),
        data=str(folder / "latents"),
        validation=str(folder / "latents"),
        latents=4,
        rollout=1.0,
        rollout_from=1,
        rollout_full=2,
        validation_clips=2,
        validation_latents=5,
    )


def test_a_run_exports_a_world_that_plays_and_that_training_continues_from(folder: Path, tmp_path: Path) -> None:
    train(flow_run(folder, tmp_path / "first", 3))
    lines = [json.loads(line) for line in (tmp_path / "first" / "log.jsonl").read_text().splitlines()]
    assert [line["rolled"] for line in lines if "rolled" in line] == [0.0, 0.0, 1.0]
    assert {"validation_loss_1000", "validation_psnr_model_1s", "validation_psnr_repeat_1s"} <= lines[-1].keys()
    assert list((tmp_path / "first" / "pictures").glob("*.png"))

    world = WorldModel.from_pretrained(tmp_path / "first" / "export")
    state, _ = world.reset([np.zeros((SIDE, SIDE, 3), np.uint8)], prompts=["a red room"])
    state, frames = world.step(state, np.tile(np.eye(4), (1, 4, 1, 1)))
    assert frames.shape == (1, 4, SIDE, SIDE, 3)

    shipped = str(tmp_path / "first" / "export")
    train(dataclasses.replace(flow_run(folder, tmp_path / "second", 1, init=shipped), tokenizer=shipped))
    again = WorldModel.from_pretrained(tmp_path / "second" / "export")
    for before, after in zip(world.transformer.parameters(), again.transformer.parameters(), strict=True):
        assert (before - after).abs().max() < 0.02  # one step from there, not a new start


@pytest.mark.parametrize("mode", ["chunk_causal", "bidirectional"])
def test_whole_clips_train_in_one_pass(folder: Path, tmp_path: Path, mode: str) -> None:
    train(dataclasses.replace(flow_run(folder, tmp_path, 2), mode=mode))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert all(0 <= line["start_given"] <= 1 for line in lines[:2])
    assert np.isfinite([lines[-1]["validation_loss_1000"], lines[-1]["validation_psnr_model_1s"]]).all()
    WorldModel.from_pretrained(tmp_path / "export")


def test_fine_tuning_by_low_rank_updates_exports_ordinary_weights(folder: Path, tmp_path: Path) -> None:
    train(flow_run(folder, tmp_path / "base", 1))
    base = str(tmp_path / "base" / "export")
    train(dataclasses.replace(flow_run(folder, tmp_path / "tuned", 3, init=base), lora_rank=2))
    before, after = (WorldModel.from_pretrained(tmp_path / name / "export").transformer for name in ("base", "tuned"))
    moved = {
        name: bool((weight != other).any())
        for (name, weight), other in zip(before.named_parameters(), after.parameters(), strict=True)
    }
    assert moved["blocks.0.attn.qkv.weight"]
    assert not moved["x_embedder.proj.weight"]


def test_an_unknown_mode_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"mode: expected one of .*, got .causal."):
        dataclasses.replace(flow_run(folder, tmp_path, 1), mode="causal")


def test_weights_of_another_shape_are_refused(folder: Path, tmp_path: Path) -> None:
    other = dataclasses.replace(toy(), transformer=dataclasses.replace(toy().transformer, depth=4))
    (tmp_path / "config.json").write_text(config_to_json(other))
    train(flow_run(folder, tmp_path / "run", 1))
    run = dataclasses.replace(
        flow_run(folder, tmp_path / "more", 1, init=str(tmp_path / "run" / "export")),
        world=str(tmp_path / "config.json"),
    )
    with pytest.raises(CheckpointError, match=r"blocks\.2"):
        train(run)


def test_a_rollout_in_training_is_the_world_that_is_played(folder: Path) -> None:
    config = toy()
    model = random_flow_model(config, 3).eval()
    batch = batch_of(open_latents(folder / "latents"), model.text, 2, 5, generator(0, 0, "t"), 0.0)
    clips = model.clips(batch.tensors)
    noise = torch.randn(clips.latents[:, :, 1:].shape)
    made = rollout(model, clips, noise)

    world = WorldModel(config, model.transformer, VideoTokenizer(config.tokenizer), model.text)
    mask = clips.text_mask
    state = new_worlds(
        world.transformer, config, made[:, :, :1], clips.intrinsics, clips.text, mask, [0, 1], world.fingerprint
    )
    for step in range(4):
        path = clips.poses[:, 1 + 4 * step : 5 + 4 * step]
        state, latents = world.step_latent(state, path, noise=noise[:, :, step : step + 1])
        assert torch.allclose(latents.values, made[:, :, step + 1 : step + 2], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_what_follows_the_truth_is_measured_beside_what_is_played(folder: Path) -> None:
    model = random_flow_model(toy(), 3).eval()
    tensors = batch_of(open_latents(folder / "latents"), model.text, 2, 5, generator(0, 0, "t"), 0.0).tensors
    tokenizer = VideoTokenizer(model.config.tokenizer).eval()
    one_step = {**tensors, "latents": tensors["latents"][:, :, :2], "poses": tensors["poses"][:, :5]}
    short, long = (measure(model, tokenizer, part, "streaming")[0] for part in (one_step, tensors))
    for name in ("psnr_forced_1s", "psnr_alone_1s"):
        assert short[name] == pytest.approx(short["psnr_model_1s"], abs=1e-3)  # the first chunk knows no other
        assert long[name] != pytest.approx(long["psnr_model_1s"], abs=1e-3)
    assert long["psnr_forced_1s"] != pytest.approx(long["psnr_alone_1s"], abs=1e-3)


@torch.no_grad()
def test_a_chunk_made_from_the_start_alone_is_that_of_a_clip_with_a_gap(folder: Path) -> None:
    model = random_flow_model(toy(), 3).eval()
    tensors = batch_of(open_latents(folder / "latents"), model.text, 2, 5, generator(0, 0, "t"), 0.0).tensors
    noise = torch.randn(tensors["latents"][:, :, 1:].shape, generator=generator(0, 0, "n"))
    found = made_alone(model, model.clips(tensors), noise)
    kept = torch.tensor([[0, 3], [0, 3]])
    gap = model.clips({**tensors, "latents": tensors["latents"][:, :, [0, 3]], "kept": kept})
    assert torch.allclose(found[:, :, 3], made_after_truth(model, gap, noise[:, :, 2:3])[:, :, 1], rtol=1e-4, atol=1e-4)


def test_the_loss_is_a_function_of_weights_batch_and_generator(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(4)
    model, run = FlowModel(toy(), torch.ones(4)), flow_run(folder, tmp_path, 1)
    batch = batch_of(open_latents(folder / "latents"), model.text, 2, 4, generator(0, 0, "t"), 0.5)
    first, again, other = (flow_loss(model, batch.tensors, generator(0, s, "l"), run)[0] for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_share_of_rollouts_grows_from_nothing(folder: Path, tmp_path: Path) -> None:
    run = dataclasses.replace(flow_run(folder, tmp_path, 1), rollout=0.5, rollout_from=100, rollout_full=300)
    assert [rollout_share(run, step) for step in (0, 100, 200, 300, 900)] == [0, 0, 0.25, 0.5, 0.5]
    with pytest.raises(InputError, match="rollout_full > rollout_from"):
        dataclasses.replace(run, rollout_full=100)
