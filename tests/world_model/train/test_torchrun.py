"""The program itself, started by torchrun: two processes hold each clip together and share the weights."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.world_model.workers import ROOT
from world_model.errors import InputError
from world_model.model import WorldModel
from world_model.train.flow import train
from world_model.train.flow_model import FlowRun
from world_model.train.loop import RunConfig

STEPS = 3


def flow_run(folder: Path, out: Path, **settings) -> FlowRun:
    return FlowRun(
        run=RunConfig(out=str(out), steps=STEPS, batch=2, warmup=0, log_every=1, **settings),
        world=str(folder / "model" / "config.json"),
        tokenizer=str(folder / "tokenizer"),
        data=str(folder / "latents"),
        validation=str(folder / "latents"),
        latents=5,
        mode="chunk_causal",
        validation_clips=2,
        validation_latents=5,
    )


def test_flow_on_two_processes_ends_with_a_world_that_plays(folder: Path, tmp_path: Path) -> None:
    run = flow_run(folder, tmp_path / "run", context=2, shard=True, recompute=True, dtype="bfloat16", optimizer="muon")
    (tmp_path / "flow.json").write_text(json.dumps(dataclasses.asdict(run)))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    program = ["-m", "world_model.train", "flow", "--config", tmp_path / "flow.json"]
    done = subprocess.run(
        [*torchrun, *program], cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 3]
    assert all(np.isfinite(line["loss"]) for line in lines[:STEPS])
    assert np.isfinite(lines[-1]["validation_loss_1000"])

    world = WorldModel.from_pretrained(tmp_path / "run" / "export")
    state, _ = world.reset([np.zeros((32, 32, 3), np.uint8)], prompts=["a red room"])
    assert world.step(state, np.tile(np.eye(4), (1, 4, 1, 1)))[1].shape == (1, 4, 32, 32, 3)


@pytest.mark.parametrize("setting", [{"context": 2}, {"shard": True}])
def test_streaming_is_neither_split_nor_sharded(folder: Path, tmp_path: Path, setting: dict) -> None:
    run = dataclasses.replace(flow_run(folder, tmp_path, **setting), mode="streaming")
    with pytest.raises(InputError, match=f"{next(iter(setting))}: expected .* got"):
        train(run)
