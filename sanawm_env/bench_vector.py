"""Measure the vector environment on this machine, beside as many single environments in processes of their own.

Both take the same actions in turns, with the window full, so that whatever else the machine does hits both. Prints a
table and writes it as Markdown and JSON. The times mean something only on a machine that does nothing else.

    python -m sanawm_env.bench_vector --threads 2
    python -m sanawm_env.bench_vector --device cuda --processes 0
"""

import dataclasses
import json
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from tqdm import tqdm

from sanawm_env.env import SanaWMEnv
from sanawm_env.vector import SanaWMVectorEnv
from world_model.bench import describe, figure, machine
from world_model.errors import InputError
from world_model.model import WorldModel


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Options of the benchmark."""

    model: str = "nano"
    """A shipped model by name, or a folder."""
    device: str = "cpu"
    """Torch device."""
    worlds: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    """Numbers of worlds to measure."""
    processes: int = 32
    """Largest number of worlds to measure in processes too; each process holds the weights."""
    rounds: int = 5
    """Rounds, whose median counts."""
    steps: int = 8
    """Steps of each environment a round."""
    threads: int | None = None
    """CPU threads; processes divide them. Default: torch's own choice."""
    out: Path = Path("bench_vector")
    """Write OUT.json and OUT.md."""

    def __post_init__(self) -> None:
        counts = {"worlds": min(self.worlds, default=0), "rounds": self.rounds, "steps": self.steps}
        for name, count in (counts | {"threads": 1 if self.threads is None else self.threads}).items():
            if count < 1:
                raise InputError(f"{name}: expected numbers above 0, got {getattr(self, name)}")
        if self.processes < 0:
            raise InputError(f"processes: expected a number >= 0, got {self.processes}")


@dataclass(frozen=True, kw_only=True)
class Row:
    """Frames a second of all worlds together, and of the vector environment over processes."""

    worlds: int
    vector: float
    processes: float | None
    ratio: float | None


def single(model: str, device: str, threads: int) -> gym.Env:
    """A single environment, in a process that it has for itself."""
    torch.set_num_threads(threads)
    return SanaWMEnv(model=model, device=device, task="none")


def measure(bench: Bench, count: int, model: WorldModel) -> Row:
    """Both kinds in turns, with `count` worlds."""
    envs: dict[str, gym.vector.VectorEnv] = {
        "vector": SanaWMVectorEnv(count, model=bench.model, device=bench.device, task="none")
    }
    if count <= bench.processes:
        threads = torch.get_num_threads()
        make = partial(single, bench.model, bench.device, max(1, threads // count))
        # a forked process would inherit the locks of torch's threads
        envs["processes"] = gym.vector.AsyncVectorEnv([make] * count, context="spawn")
        torch.set_num_threads(threads)  # it also makes one environment here, which has just set its own number
    config = model.config
    actions = np.random.default_rng(0).uniform(-0.5, 0.5, (count, 6)).astype(np.float32)
    for env in envs.values():
        env.reset(seed=0)
        for _ in range(-(-(config.sink + config.recent) // config.block)):
            env.step(actions)
    taken: dict[str, list[float]] = {name: [] for name in envs}
    for _ in tqdm(range(bench.rounds), desc=f"{count} worlds", leave=False):
        for name, env in envs.items():
            taken[name].append(seconds(partial(env.step, actions), bench.steps))
    for env in envs.values():
        env.close()
    frames = count * config.frames_per_step * bench.steps
    speeds = {name: frames / statistics.median(times) for name, times in taken.items()}
    beside = speeds.get("processes")
    ratio = None if beside is None else speeds["vector"] / beside
    return Row(worlds=count, vector=speeds["vector"], processes=beside, ratio=ratio)


def seconds(step: Callable[[], Any], steps: int) -> float:
    began = time.perf_counter()
    for _ in range(steps):
        step()  # frames come back to the CPU, so nothing is left in a device's queue
    return time.perf_counter() - began


def report(bench: Bench, command: str) -> dict[str, Any]:
    """Everything measured, as plain JSON values."""
    if bench.threads is not None:
        torch.set_num_threads(bench.threads)
    model = SanaWMEnv(model=bench.model, device=bench.device, task="none").model
    facts = {"format": 1, "command": command, "date": time.strftime("%Y-%m-%d %H:%M %Z")}
    facts |= {"model": describe(model), "machine": machine(model.device), "rounds": bench.rounds}
    return facts | {"rows": [dataclasses.asdict(measure(bench, count, model)) for count in sorted(bench.worlds)]}


def markdown(facts: dict[str, Any]) -> str:
    """The report for people."""
    lines = [f"# Vector environment of {facts['model']['fingerprint']}", "", f"`{facts['command']}`, {facts['date']}"]
    for title in ("model", "machine"):
        lines += ["", f"* {title}: " + ", ".join(f"{k} {v}" for k, v in facts[title].items() if v is not None)]
    lines += ["", f"Frames a second of all worlds; medians of {facts['rounds']} rounds in turns.", ""]
    lines += ["| worlds | vector | processes | ratio |", "|---:|---:|---:|---:|"]
    for row in facts["rows"]:
        lines.append(
            f"| {row['worlds']} | " + " | ".join(figure(row[n]) for n in ("vector", "processes", "ratio")) + " |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """The program `python -m sanawm_env.bench_vector`."""
    import tyro

    bench = tyro.cli(Bench, prog="python -m sanawm_env.bench_vector", description=__doc__)
    facts = report(bench, shlex.join(["python", "-m", "sanawm_env.bench_vector", *sys.argv[1:]]))
    print(markdown(facts))
    for suffix, content in ((".md", markdown(facts)), (".json", json.dumps(facts, indent=1) + "\n")):
        bench.out.with_suffix(suffix).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
