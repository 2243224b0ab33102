"""How fast training is on this machine: every objective's step, taken apart, beside what its matrix products could do.

    python -m world_model.train bench --config FILE.json       # or flags: --world nano --threads 2

Steps of all objectives run in turns, and the matrix product that serves as ceiling with them: machines drift. Latents
are made up and lie in memory, as real ones do. Medians; the load average at the start is part of the report.

Shapes: B clips, T latents, C channels, Y, X cells, S = Y*X.
"""

import json
import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from world_model import checkpoint
from world_model.bench_work import Samples, alternating
from world_model.errors import InputError, require, require_one_of
from world_model.train import optimizer, streaming
from world_model.train.bench_objectives import Work, chunk_by_chunk, streaming_work, works
from world_model.train.loop import generator
from world_model.train.trajectories import load_model

MIB = 2**20
CEILING = 1024  # rows and columns of the matrix product
PRODUCTS = 8  # in a row: one is over before a busy machine's scheduler looks again
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
PHASES = ("data", "gradients", "update")


@dataclass(frozen=True, kw_only=True)
class BenchRun:
    """`python -m world_model.train bench`."""

    world: str = "nano"  # shipped name or model folder
    batch: int = 4
    latents: int = 9  # of a clip
    rounds: int = 5
    optimizer: str = "muon"
    threads: int = 1
    device: str = "cpu"
    dtype: str = "float32"  # "bfloat16": autocast
    clock: str = "wall"  # "processor": seconds that this process computed, all threads together; fit for a busy machine
    out: str = ""  # folder of bench.json and bench.md; "": only print

    def __post_init__(self) -> None:
        if min(self.batch, self.rounds, self.threads) < 1 or self.latents < 3:
            raise InputError(
                "bench: expected batch, rounds, threads >= 1 and latents >= 3, "
                f"got {self.batch}, {self.rounds}, {self.threads}, {self.latents}"
            )
        require_one_of("clock", self.clock, *CLOCKS)
        require(self.clock == "wall" or self.device == "cpu", f"clock: expected 'wall' on {self.device!r}")
        require(self.dtype in ("float32", "bfloat16"), f"dtype: expected float32 or bfloat16, got {self.dtype!r}")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One objective. Times are medians of a step's parts; tokens are latent cells of the clips of a step."""

    objective: str
    data_ms: float
    gradients_ms: float  # loss, its rollouts, and the backward pass
    update_ms: float  # clipping, optimiser, moving average
    samples_per_second: float
    tokens_per_second: float
    data_share: float  # of the step
    gflop: float  # matrix products, convolutions and attention of `gradients`
    utilisation: float  # those, as a share of what the ceiling's matrix product reaches
    saved_mib: float  # activations kept for the backward pass
    state_mib: float  # weights, gradients, moving average, what the optimiser remembers


def train(config: BenchRun) -> None:
    """Measure, print the tables, and write them where `out` says."""
    load = os.getloadavg()
    rows, ratio, ceiling = measure(config)
    about = {**asdict(config), "gflops_ceiling": ceiling, "two_pass_ratio": ratio, "load_average": load[0]}
    about |= {"torch": torch.__version__, "machine": platform.machine(), "cores": os.cpu_count()}
    text = f"Times of the {config.clock} clock.\n\n" + to_markdown(rows, ratio, ceiling)
    print(text)
    if config.out:
        folder = Path(config.out)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "bench.md").write_text(text)
        (folder / "bench.json").write_text(json.dumps({"about": about, "rows": [asdict(r) for r in rows]}, indent=1))


def measure(config: BenchRun) -> tuple[list[Row], float, float]:
    """A row an objective; time of a naive per-chunk loop over that of the two-pass form; the ceiling in GFLOP/s."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(0)
    device = torch.device(config.device)
    model = load_model(checkpoint.find(config.world), config.device).train()
    objectives = works(model, batch=config.batch, latents=config.latents)
    timed = {work.name: _Timed(work, config, device) for work in objectives}
    ways = {"in two passes": streaming.velocities, "chunk by chunk": chunk_by_chunk}
    for name, way in ways.items():
        work = streaming_work(name, way, model, batch=config.batch, latents=config.latents)
        timed[name] = _Timed(work, config, device)
    square = torch.randn(CEILING, CEILING, device=device, dtype=getattr(torch, config.dtype))
    calls = {f"{name} {phase}": getattr(each, phase) for name, each in timed.items() for phase in PHASES}
    calls["ceiling"] = lambda: [square @ square for _ in range(PRODUCTS)]
    taken = alternating(calls, config.rounds, device, "bench", CLOCKS[config.clock])
    ceiling = PRODUCTS * 2 * CEILING**3 / taken["ceiling"].median / 1e6
    tokens = config.batch * config.latents * model.config.tokenizer.grid[0] * model.config.tokenizer.grid[1]
    rows = [row(name, each, taken, config.batch, tokens, ceiling) for name, each in timed.items() if name not in ways]
    two_passes, one_by_one = (taken[f"{name} gradients"].median for name in ways)
    return rows, one_by_one / two_passes, ceiling


class _Timed:
    """An objective whose step is called part by part, in the order of PHASES."""

    def __init__(self, work: Work, config: BenchRun, device: torch.device) -> None:
        self.work, self.device, self.bfloat16 = work, device, config.dtype == "bfloat16"
        self.optimizers = optimizer.build(work.module, kind=config.optimizer, lr=1e-6, weight_decay=0.01)
        self.ema = [p.detach().clone() for p in work.module.parameters()]
        self.step, self.tensors = 0, {}

    def data(self) -> None:
        self.step += 1
        drawn = self.work.draw(generator(0, self.step, self.work.name))
        self.tensors = {name: x.to(self.device) for name, x in drawn.items()}

    def gradients(self) -> None:
        self.work.module.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
            value = self.work.loss(self.work.module, self.tensors, generator(0, self.step, "loss"))
        value.backward()

    def update(self) -> None:
        nn.utils.clip_grad_norm_(self.work.module.parameters(), 1.0)
        for each in self.optimizers:
            each.step()
        with torch.no_grad():
            for average, weight in zip(self.ema, self.work.module.parameters(), strict=True):
                average.lerp_(weight, 0.01)


def row(name: str, timed: _Timed, taken: dict[str, Samples], batch: int, tokens: int, ceiling: float) -> Row:
    """What the times of one objective come to."""
    data, gradients, update = (taken[f"{name} {phase}"].median for phase in PHASES)
    step = data + gradients + update
    gflop = count_gflop(timed)
    remembered = [x for each in timed.optimizers for memory in each.state.values() for x in memory.values()]
    weights = list(timed.work.module.parameters())
    held = [*weights, *timed.ema, *[w.grad for w in weights if w.grad is not None], *remembered]
    return Row(
        objective=name,
        data_ms=data,
        gradients_ms=gradients,
        update_ms=update,
        samples_per_second=1000 * batch / step,
        tokens_per_second=1000 * tokens / step,
        data_share=data / step,
        gflop=gflop,
        utilisation=gflop / (gradients / 1000) / ceiling,
        saved_mib=saved_bytes(timed) / MIB,
        state_mib=sum(x.nbytes for x in held if isinstance(x, torch.Tensor)) / MIB,
    )


def count_gflop(timed: _Timed) -> float:
    """Of one forward and backward pass. Attention is counted as the matrix products that it is made of."""
    with _Counter() as counter, sdpa_kernel(SDPBackend.MATH):
        timed.gradients()
    return counter.flop / 1e9


class _Counter(TorchDispatchMode):
    """Floating point operations of every call that torch knows a formula for. Its own counter follows modules too,
    which it cannot where a loss calls them without gradients.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flop = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution_backward.default:
            self.flop += convolution_backward_flop(args[0], args[2], args[-1])
        elif func._overloadpacket in flop_registry:
            self.flop += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


def convolution_backward_flop(out: torch.Tensor, weight: torch.Tensor, wanted: list[bool]) -> int:
    """Of the gradients of a convolution's input and weight, each as much as the forward pass: torch's own formula
    takes a depthwise convolution for a full one. out: the output's gradient; wanted: input, weight, bias.
    """
    return 2 * out.numel() * weight[0].numel() * sum(wanted[:2])


def saved_bytes(timed: _Timed) -> int:
    """What autograd keeps until the backward pass, weights not counted."""
    weights = {p.untyped_storage().data_ptr() for p in timed.work.module.parameters()}
    kept: dict[int, int] = {}

    def remember(x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda x: x):
        timed.gradients()
    return sum(kept.values())


def to_markdown(rows: list[Row], ratio: float, ceiling: float) -> str:
    """The rows as a table, and two sentences."""
    head = (
        "| objective | step ms | data | update | clips/s | tokens/s | GFLOP | utilisation | saved MiB | state MiB |\n"
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n"
    )
    lines = [
        f"| {r.objective} | {r.data_ms + r.gradients_ms + r.update_ms:.0f} | {r.data_share:.1%} | {r.update_ms:.0f} | "
        f"{r.samples_per_second:.2f} | {r.tokens_per_second:.0f} | {r.gflop:.1f} | {r.utilisation:.0%} | "
        f"{r.saved_mib:.0f} | {r.state_mib:.0f} |"
        for r in rows
    ]
    return (
        head
        + "\n".join(lines)
        + f"\n\nCeiling: {ceiling:.1f} GFLOP/s, a product of {CEILING} x {CEILING} matrices in the same rounds.\n"
        f"Loss and gradients of streaming chunk by chunk take {ratio:.2f} times as long as in two passes.\n"
    )
