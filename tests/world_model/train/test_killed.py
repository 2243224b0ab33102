"""kill -9 in the middle of a step, of a snapshot, of a line of the log: the run goes on as if nothing had happened."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.world_model.train.test_loop import run
from world_model.train import snapshot

ROOT = Path(__file__).parents[3]
# A process that trains as `run` does, and at a chosen moment kills itself as the system would: no handler runs.
VICTIM = """
import os, signal, sys
from pathlib import Path
from tests.world_model.train import test_loop
from world_model.train import snapshot

moment, out = sys.argv[1], Path(sys.argv[2])
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
if moment == "step":
    def batches(step):
        return die() if step == 17 else test_loop.sample_batch(step)
else:
    batches, write = test_loop.sample_batch, snapshot.write_tensors
    def write_some(folder, stem, tensors, limit=snapshot.PART_BYTES):
        if stem == "optimizer" and "00000017" in str(folder):
            die()
        return write(folder, stem, tensors, limit)
    snapshot.write_tensors = write_some
test_loop.run(out, batches=batches, log_every=4)
"""


@pytest.mark.parametrize("moment", ["step", "snapshot"])
def test_a_killed_process_goes_on_bit_for_bit(moment: str, tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", log_every=4)
    done = subprocess.run([sys.executable, "-c", VICTIM, moment, str(tmp_path / "cut")], cwd=ROOT, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    newest = snapshot.snapshots(tmp_path / "cut" / "snapshots")[0].name
    assert newest == {"step": "step_00000017", "snapshot": "step_00000016"}[moment]
    with (tmp_path / "cut" / "log.jsonl").open("a") as log:
        log.write('{"step": 99, "loss": 1.0}\n{"step": 2')  # later than the snapshot, and half a line

    resumed = run(tmp_path / "cut", log_every=4)
    for name, weight in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], weight), name
    assert curve(tmp_path / "cut") == curve(tmp_path / "whole")
    assert not list((tmp_path / "cut" / "snapshots").glob(".step_*"))


def curve(out: Path) -> list[dict]:
    """The log without its clock."""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]
