"""Several workers on one machine: their step is that of one worker with all their clips, and they stay together."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from world_model.errors import InputError
from world_model.train import distributed
from world_model.train.loop import Batch, RunConfig, fit, generator

STEPS = 3
WORKER = """
import os, sys
from pathlib import Path
from world_model.train import distributed
sys.path.insert(0, sys.argv[2])
from test_distributed import run
distributed.join(os.environ, "cpu")
run(Path(sys.argv[1]))
distributed.leave()
"""


def draw(step: int) -> torch.Tensor:
    return torch.randn(4, 5, generator=generator(0, step, "x"))


def run(out: Path, clips=draw) -> nn.Module:
    """A toy run. Every worker starts from other weights: those of rank 0 must win."""
    torch.manual_seed(distributed.rank())
    module = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1))
    config = RunConfig(out=str(out), steps=STEPS, lr=0.01, warmup=0, log_every=1)

    def loss(module, tensors, _generator):
        return (module(tensors["x"]) - tensors["x"].sum(1, keepdim=True)).square().mean(), {}

    def export(module, folder: Path) -> None:
        folder.mkdir(parents=True)
        save_file(module.state_dict(), folder / "toy.safetensors")

    return fit(
        config,
        module,
        loss,
        lambda step: Batch(tensors={"x": clips(step)}, ids=("toy",)),
        validate=lambda _: ({}, {}),
        export=export,
    )


@pytest.mark.parametrize("count", [2, 3])
def test_workers_take_the_step_of_all_their_clips(count: int, tmp_path: Path, monkeypatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared["PYTHONPATH"] = str(Path(__file__).parents[3])
    command = [sys.executable, "-c", WORKER, str(tmp_path / "many"), str(Path(__file__).parent)]
    workers = [
        subprocess.Popen(
            command, env=shared | {"RANK": str(i), "LOCAL_RANK": str(i)}, stderr=subprocess.PIPE, text=True
        )
        for i in range(count)
    ]
    errors = [worker.communicate(timeout=120)[1] for worker in workers]
    assert all(worker.returncode == 0 for worker in workers), errors

    def everybodys(step: int) -> torch.Tensor:
        drawn = []
        for worker in range(count):
            monkeypatch.setattr(distributed, "replica", lambda worker=worker: worker)
            drawn.append(draw(step))
        monkeypatch.setattr(distributed, "replica", lambda: 0)
        return torch.cat(drawn)

    run(tmp_path / "one", everybodys)
    many, one = (load_file(tmp_path / name / "export" / "toy.safetensors") for name in ("many", "one"))
    for name, weight in one.items():
        torch.testing.assert_close(many[name], weight, rtol=1e-5, atol=1e-6)
    lines = (tmp_path / "many" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 3]  # of rank 0 alone


def test_one_worker_needs_no_group() -> None:
    module = nn.Linear(2, 1)
    module(torch.ones(1, 2)).backward()
    before = module.weight.grad.clone()
    distributed.average_gradients(module)
    distributed.share([module])
    assert torch.equal(module.weight.grad, before)
    assert distributed.agree(False, 2.5, torch.device("cpu")) == (False, 2.5)
    assert distributed.rank() == 0


def test_a_half_set_environment_is_refused() -> None:
    with pytest.raises(InputError, match="'MASTER_ADDR', 'MASTER_PORT', 'WORLD_SIZE'"):
        distributed.join({"RANK": "0", "LOCAL_RANK": "0"}, "cpu")
