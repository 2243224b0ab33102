"""Several processes of one test, joined by gloo."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]


def start(count: int, program: str, arguments: Sequence[object]) -> list[subprocess.Popen[str]]:
    """`count` processes that run Python text, in an environment as torchrun makes it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)],
            env=os.environ | shared | {"PYTHONPATH": str(ROOT), "RANK": str(i), "LOCAL_RANK": str(i)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(count)
    ]


def run(count: int, program: str, *arguments: object) -> None:
    """All of them to their ends, which must be good."""
    workers = start(count, program, arguments)
    try:
        errors = [worker.communicate(timeout=240)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert all(worker.returncode == 0 for worker in workers), "\n".join(errors)
