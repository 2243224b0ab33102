"""A tiny transformer trained by several workers, its weights sharded, its clips split: the steps of one worker."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.world_model import workers
from tests.world_model.test_whole_clip import random_clips
from world_model import whole_clip
from world_model.clips import noised
from world_model.errors import InputError
from world_model.presets import tiny_sana
from world_model.train import distributed, snapshot
from world_model.train.flow_model import FlowModel
from world_model.train.loop import Batch, RunConfig, fit, generator
from world_model.train.self_forcing import exit_rollout

STEPS, FRAMES, CLIPS = 3, 7, 6
CASES = {  # settings of the run
    "sharded": {"shard": True},
    "sharded muon": {"shard": True, "optimizer": "muon", "recompute": True},
    "split": {"context": 2},
    "split and sharded": {"context": 2, "shard": True},
}
PROGRAM = """
import os, sys
from pathlib import Path
from tests.world_model.train import test_shards
from world_model.train import distributed
distributed.join(os.environ, "cpu")
for what in sys.argv[2:]:
    test_shards.work(Path(sys.argv[1]), what)
distributed.leave()
"""


def model() -> FlowModel:
    torch.manual_seed(5)
    flow = FlowModel(tiny_sana(), torch.ones(8))
    for weight in flow.parameters():
        weight.data += 0.1 * torch.randn_like(weight)
    return flow


def batch(step: int) -> Batch:
    """This replica's share of six clips, which are the same whoever draws them."""
    clips = random_clips(tiny_sana(), FRAMES, CLIPS)
    torch.manual_seed(step)
    tensors = {
        "latents": torch.randn_like(clips.latents),
        "poses": clips.poses,
        "intrinsics": clips.intrinsics,
        "ids": torch.randint(4, (CLIPS, 5)),
        "mask": torch.ones(CLIPS, 5, dtype=torch.bool),
        "noise": torch.randn_like(clips.latents),
        "time": 1000 * torch.rand(CLIPS, FRAMES),
    }
    count = distributed.replicas()
    return Batch(tensors={name: x[distributed.replica() :: count] for name, x in tensors.items()}, ids=("six",))


def loss(module, tensors, _generator):
    held, chunks = distributed.held(FRAMES), whole_clip.training_chunks(FRAMES, module.config)
    clips, data, noise, times = module.clips(tensors), tensors["latents"], tensors["noise"], tensors["time"]
    noisy = noised(data, noise, times)
    velocity = whole_clip.velocities(module.transformer, module.config, clips, noisy, times, chunks, held)
    error = (velocity - held.cut(noise - data, 2)).square().mean((1, 3, 4))
    return held.mean(error, torch.ones_like(error)), {}


def train(out: Path, steps: int = STEPS, **settings) -> None:
    def export(module, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(module.state_dict(), folder / "all.safetensors")

    def validate(module):
        return {"loss": float(loss(module, batch(9).tensors, None)[0])} if settings.get("context", 1) == 1 else {}, {}

    settings = {"lr": 1e-3, "warmup": 0, "ema": 0.5, "log_every": 1, "save_minutes": 0.0, **settings}
    config = RunConfig(out=str(out), steps=steps, **settings)
    fit(config, model(), loss, batch, validate=validate, export=export, whole_clips=True)


def work(folder: Path, what: str) -> None:
    """A worker's part of the test."""
    if what == "exits":
        exits = [exit_step_of(draw) for draw in range(6)]
        (folder / f"exits.{distributed.rank()}.json").write_text(json.dumps(exits))
    elif what == "cases":
        for name, settings in CASES.items():
            distributed.arrange("cpu", settings.get("context", 1))
            train(folder / name, **settings)
    elif what == "slowly":
        fit_slowly(folder / "killed")
    else:
        train(folder / what, STEPS, shard=True)


def exit_step_of(draw: int) -> int:
    """At which step a rollout leaves its chunks, from how often the transformer was called."""
    student, calls = model(), []
    student.transformer.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        exit_rollout(student, batch(0).tensors, generator(0, draw, "exit"))
    chunks = (FRAMES - 1) // student.config.block
    return len(calls) // chunks - 2  # of each chunk: steps 0 to the exit, and the cache pass


def fit_slowly(out: Path) -> None:
    """Steps that leave time to be killed between."""
    global batch
    whole = batch
    batch = lambda step: (time.sleep(0.5 * (step > 0)), whole(step))[1]  # noqa: E731
    train(out, STEPS, shard=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("shards")
    workers.run(2, PROGRAM, folder, "cases", "exits")
    for optimizer in ("adamw", "muon"):
        train(folder / optimizer, optimizer=optimizer)
    return folder


def log_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def assert_same_run(one: Path, other: Path) -> None:
    """Figures of every step, and how far weights moved: AdamW turns a gradient's rounding into a whole step here and
    there, hence the norm."""
    first, second = ([line for line in log_of(out) if "loss" in line] for out in (one, other))
    assert [line["step"] for line in first] == [line["step"] for line in second] == list(range(1, STEPS + 1))
    for a, b in zip(first, second, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert a["gradient_norm"] == pytest.approx(b["gradient_norm"], rel=3e-4)
    begun = model().state_dict()
    a, b = (load_file(out / "export" / "all.safetensors") for out in (one, other))
    assert a.keys() == b.keys() == begun.keys()
    apart = sum((a[name] - b[name]).square().sum() for name in a)
    moved = sum((a[name] - begun[name]).square().sum() for name in a)
    assert moved > 0
    assert apart <= 0.01**2 * moved


@pytest.mark.parametrize("name", CASES)
def test_several_workers_take_the_steps_of_one(folder: Path, name: str) -> None:
    assert_same_run(folder / CASES[name].get("optimizer", "adamw"), folder / name)
    held_out = [line["validation_loss"] for line in log_of(folder / name) if "validation_loss" in line]
    assert ("context" in CASES[name]) != bool(held_out)  # the EMA was gathered to be measured


def test_all_workers_leave_a_rollout_at_the_same_step(folder: Path) -> None:
    first, second = (json.loads((folder / f"exits.{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert len(set(first)) > 1
    assert set(first) <= {0, 1, 2, 3}


def without_last_snapshot(run: Path, name: str) -> Path:
    out = run.with_name(name)
    shutil.copytree(run, out)
    shutil.rmtree(out / "snapshots" / f"step_{STEPS:08d}")
    assert [path.name for path in snapshot.snapshots(out / "snapshots")] == ["step_00000002"]
    return out


def test_another_number_of_workers_goes_on(folder: Path) -> None:
    alone = without_last_snapshot(folder / "sharded", "from two, alone")
    train(alone)
    several = [
        without_last_snapshot(folder / "sharded", "from two"),
        without_last_snapshot(folder / "adamw", "from one"),
    ]
    workers.run(3, PROGRAM, folder, *(out.name for out in several))
    for out in (alone, *several):
        assert_same_run(folder / "adamw", out)


def test_a_worker_that_is_killed_costs_no_more_than_a_resumed_run(folder: Path) -> None:
    started = workers.start(2, PROGRAM, [folder, "slowly"])
    try:
        deadline = time.monotonic() + 120
        while not (folder / "killed" / "snapshots" / "step_00000001").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(started[1].pid, signal.SIGKILL)
    finally:
        for worker in started:  # torchrun ends the others of a worker that died
            worker.kill()
            worker.communicate()
    workers.run(2, PROGRAM, folder, "killed")
    assert_same_run(folder / "adamw", folder / "killed")


def test_what_one_process_cannot_do_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="shard: expected several processes"):
        train(tmp_path, shard=True)
    with pytest.raises(InputError, match="context: expected 1 where clips are not seen in one pass, got 2"):
        fit(
            RunConfig(out=str(tmp_path), steps=1, context=2),
            model(),
            loss,
            batch,
            validate=lambda _: ({}, {}),
            export=lambda *_: None,
        )
