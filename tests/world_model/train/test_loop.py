"""The training loop on a toy problem: it learns, it resumes bit for bit, and it says what went wrong."""

import json
import logging
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from world_model.errors import CheckpointError, InputError
from world_model.pictures import png
from world_model.train import snapshot
from world_model.train.loop import Batch, DivergedError, RunConfig, fit, generator, learning_rate
from world_model.train.muon import orthogonal
from world_model.train.record import Record


class Killed(Exception):
    """Stands for a process that ends without a word."""


def toy() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


def sample_batch(step: int) -> Batch:
    x = torch.randn(16, 4, generator=generator(0, step, "toy"))
    return Batch(tensors={"x": x, "y": x.sum(1, keepdim=True) / 2}, ids=(f"draw {step}",))


def loss(module, tensors, noise):
    shaken = tensors["x"] + 0.01 * torch.randn(tensors["x"].shape, generator=noise)
    value = (module(shaken) - tensors["y"]).square().mean()
    return value, {"squared": value.detach()}


def validate(module):
    return {"weight": float(module[0].weight.sum())}, {"grey": np.full((4, 6, 3), 128, np.uint8)}


def export(module, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(module.state_dict(), folder / "toy.safetensors")


def run(out: Path, module: nn.Module | None = None, *, batches=sample_batch, objective=loss, **changes) -> nn.Module:
    settings = {"steps": 30, "lr": 0.01, "warmup": 3, "log_every": 5, "save_minutes": 0.0} | changes
    config = RunConfig(out=str(out), **settings)
    return fit(config, module or toy(), objective, batches, validate=validate, export=export)


def log_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_it_learns_and_leaves_its_files(tmp_path, optimizer):
    run(tmp_path, steps=150, optimizer=optimizer, schedule="cosine", save_minutes=5.0)
    losses = [line["loss"] for line in log_of(tmp_path) if "loss" in line]
    assert losses[-1] < 0.5 * losses[0]
    assert [folder.name for folder in snapshot.snapshots(tmp_path / "snapshots")] == ["step_00000150"]
    assert (tmp_path / "pictures" / "grey_00000150.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "export" / "toy.safetensors").exists()


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path, optimizer):
    whole = run(tmp_path / "whole", optimizer=optimizer)

    def killed_at_17(step: int) -> Batch:
        if step == 17:
            raise Killed
        return sample_batch(step)

    with pytest.raises(Killed):
        run(tmp_path / "cut", batches=killed_at_17, optimizer=optimizer)
    resumed = run(tmp_path / "cut", optimizer=optimizer)
    for name, weight in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], weight, rtol=0, atol=0)


def test_a_run_goes_on_from_one_that_logged_other_figures(tmp_path):
    record = Record(tmp_path, every=2, board="", step=1, recent=[{"loss": 3.0, "former": 1.0}])
    assert record.add(2, 1.0, {"loss": 1.0, "new": 5.0}) == {"loss": 2.0, "new": 5.0}


def test_a_request_to_stop_saves_first(tmp_path):
    def stop_at_7(step: int) -> Batch:
        if step == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return sample_batch(step)

    run(tmp_path, batches=stop_at_7, save_minutes=60.0)
    assert [folder.name for folder in snapshot.snapshots(tmp_path / "snapshots")] == ["step_00000008"]


def break_checksum(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({name: x + 1 for name, x in tensors.items()}, folder / "model.safetensors")


def truncate(folder: Path) -> None:
    path = folder / "ema.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def remove_manifest(folder: Path) -> None:
    (folder / snapshot.MANIFEST).unlink()


@pytest.mark.parametrize("damage", [break_checksum, truncate, remove_manifest])
def test_a_broken_snapshot_is_passed_over(tmp_path, caplog, damage):
    run(tmp_path, steps=10)
    damage(tmp_path / "snapshots" / "step_00000010")
    with caplog.at_level(logging.WARNING):
        _, state = snapshot.newest(tmp_path / "snapshots")
    assert state["step"] == 9
    assert "step_00000010 is broken" in caplog.text


def test_only_broken_snapshots_are_an_error(tmp_path):
    run(tmp_path, steps=3, keep=1)
    remove_manifest(tmp_path / "snapshots" / "step_00000003")
    with pytest.raises(CheckpointError, match="all 1 are broken"):
        run(tmp_path, steps=6)


def test_snapshots_of_another_configuration_are_refused(tmp_path):
    run(tmp_path, steps=3)
    with pytest.raises(CheckpointError, match="snapshots of this configuration"):
        run(tmp_path, nn.Linear(4, 1), steps=6)


def test_it_starts_from_weights_alone_with_a_fresh_optimiser(tmp_path):
    run(tmp_path / "first", steps=20)
    for source in (tmp_path / "first" / "export" / "toy.safetensors", tmp_path / "first/snapshots/step_00000020"):
        module = toy()
        module.load_state_dict(snapshot.read_weights(source))
        second = tmp_path / f"second {source.name}"
        run(second, module, steps=1, ema=0.0)
        moved = module[0].weight - load_file(tmp_path / "first" / "export" / "toy.safetensors")["0.weight"]
        assert 0 < moved.abs().max() < 0.01  # one warm-up step from there, not from random weights
    with pytest.raises(CheckpointError, match="init: expected"):
        snapshot.read_weights(tmp_path / "nothing.pt")


def test_divergence_names_step_and_batch(tmp_path):
    def nan_at_4(module, tensors, noise):
        value, logs = loss(module, tensors, noise)
        return (value * float("nan") if nan_at_4.calls == 4 else value), logs | count()

    def count() -> dict:
        nan_at_4.calls += 1
        return {}

    nan_at_4.calls = 0
    with pytest.raises(DivergedError, match=r"step 4.*nan.*draw 4"):
        run(tmp_path, objective=nan_at_4)
    saved = json.loads((tmp_path / "diverged.json").read_text())
    assert saved == {"step": 4, "figure": "loss", "value": "nan", "batch": ["draw 4"]}


def test_gradients_that_are_no_numbers_stop_a_run_too(tmp_path):
    def infinite_slope(module, tensors, noise):
        value, logs = loss(module, tensors, noise)
        return value + (module[0].weight * 0).abs().sqrt().sum(), logs  # 0, with an infinite derivative

    with pytest.raises(DivergedError, match=r"step 0: expected a finite gradient norm.*draw 0"):
        run(tmp_path, objective=infinite_slope)
    assert json.loads((tmp_path / "diverged.json").read_text())["batch"] == ["draw 0"]


def test_schedule():
    cosine = RunConfig(out="x", steps=100, warmup=9, lr=1.0, schedule="cosine")
    assert learning_rate(cosine, 0, 0.0) == pytest.approx(0.1)
    assert learning_rate(cosine, 50, 0.0) == pytest.approx(0.5)
    assert learning_rate(cosine, 100, 0.0) == pytest.approx(0.0)
    timed = RunConfig(out="x", minutes=1.0, warmup=9, lr=1.0, schedule="cosine")
    assert learning_rate(timed, 50, 30.0) == pytest.approx(0.5)
    assert learning_rate(RunConfig(out="x", steps=1, lr=1.0), 10**6, 0.0) == 1.0


def test_draws_depend_on_seed_step_and_purpose_alone():
    draws = [torch.rand(4, generator=generator(*key)) for key in ((1, 2, "a"), (1, 2, "a"), (1, 2, "b"), (1, 3, "a"))]
    torch.testing.assert_close(draws[0], draws[1], rtol=0, atol=0)
    assert len({tuple(draw.tolist()) for draw in draws}) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"steps": 0}, "a limit"), ({"lr": 0.0}, "lr"), ({"schedule": "linear"}, "linear"), ({"ema": 1.0}, "ema")],
)
def test_wrong_settings_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        RunConfig(out="x", **({"steps": 1} | changes))


def test_large_tensors_are_split_and_joined(tmp_path):
    tensors = {f"layer {i}": torch.randn(100) for i in range(5)}
    paths = snapshot.write_tensors(tmp_path, "w", tensors, limit=1000)
    assert [path.name for path in paths] == [f"w-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    joined = snapshot.read_tensors(tmp_path, "w")
    assert all(torch.equal(joined[name], tensors[name]) for name in tensors)
    paths[1].unlink()
    with pytest.raises(CheckpointError, match="expected 3 parts, found 2"):
        snapshot.read_tensors(tmp_path, "w")


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (16, 16)])
def test_muon_evens_out_singular_values(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape) * torch.logspace(0, -2, shape[1])
    spectrum = torch.linalg.svdvals(orthogonal(matrix))
    assert spectrum.max() < 1.3
    assert spectrum.median() > 0.6


def test_pictures_are_png(tmp_path):
    cv2 = pytest.importorskip("cv2", reason="reads the picture back")
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    (tmp_path / "x.png").write_bytes(png(picture))
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "x.png"))[:, :, ::-1], picture)
    with pytest.raises(InputError, match=r"uint8 \(H, W, 3\), got float64"):
        png(picture / 2.0)
