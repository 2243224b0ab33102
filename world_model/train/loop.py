"""One training loop for every objective: resume, EMA, schedule, log, pictures, export.

An objective hands over a module, a loss and a source of batches. Step n of a run is a function of (seed, n) and
of the weights alone: whoever draws at random gets a generator made from both. So a run that was killed repeats
nothing and skips nothing: it goes on from its newest snapshot as if it had never stopped.

Files in RunConfig.out: `snapshots/step_N`, `log.jsonl`, `pictures/*.png`, `export/` (EMA weights, the objective's
own layout); `board/` where one is asked for (train/board.py); `diverged.json` after a loss that was no number.
"""

import hashlib
import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from world_model.errors import InputError, SanaWMError
from world_model.train import distributed, optimizer, snapshot
from world_model.train.board import KINDS
from world_model.train.progress import Progress, begin, resume, save, show, update_average
from world_model.train.recompute import recompute_blocks
from world_model.train.record import Record


class DivergedError(SanaWMError):
    """The loss is no longer a number."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How to run, whatever the objective."""

    out: str
    steps: int = 0  # stop after this many, 0: no limit
    minutes: float = 0.0  # stop after this long in all, resumed stretches included, 0: no limit
    batch: int = 8
    optimizer: str = "adamw"  # "muon": Muon for linear maps and convolutions, AdamW for the rest
    lr: float = 1e-3
    warmup: int = 100  # steps
    schedule: str = "constant"  # "cosine": to zero at the limit of steps, or else of minutes
    betas: tuple[float, float] = (0.9, 0.99)  # of AdamW
    weight_decay: float = 0.01  # of tensors with at least two axes
    clip: float = 1.0  # gradient norm
    ema: float = 0.999
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"  # "bfloat16": autocast
    threads: int = 1  # of the CPU
    init: str = ""  # weights to continue from with a fresh optimiser: a .safetensors file or a snapshot
    log_every: int = 20  # steps
    save_minutes: float = 3.0  # between snapshots
    validate_minutes: float = 5.0  # between validations, which write pictures
    keep: int = 2  # snapshots
    recompute: bool = False  # gradient checkpointing: transformer blocks are computed twice and remember less
    context: int = 1  # on several processes: neighbours that hold the frames of each clip together
    shard: bool = False  # on several processes: each keeps a part of every weight and of all that is known about it
    board: str = ""  # "tensorboard": also show figures and pictures there (extra "board")

    def __post_init__(self) -> None:
        choices = {
            "optimizer": ("adamw", "muon"),
            "schedule": ("constant", "cosine"),
            "dtype": ("float32", "bfloat16"),
            "board": KINDS,
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise InputError(f"{name}: expected one of {allowed}, got {getattr(self, name)!r}")
        for name in ("batch", "lr", "clip", "threads", "log_every", "keep", "context"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name}: expected > 0, got {getattr(self, name)}")
        if self.steps <= 0 and self.minutes <= 0:
            raise InputError(f"expected a limit: steps or minutes > 0, got {self.steps} and {self.minutes}")
        if not 0 <= self.ema < 1:
            raise InputError(f"ema: expected a decay in [0, 1), got {self.ema}")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Tensors of one step, on the CPU, and where they came from."""

    tensors: Mapping[str, Tensor]
    ids: tuple[str, ...]  # named when the loss diverges


Loss = Callable[[nn.Module, Mapping[str, Tensor], torch.Generator], tuple[Tensor, dict[str, Tensor]]]
Validate = Callable[[nn.Module], tuple[dict[str, float], dict[str, np.ndarray]]]


def generator(seed: int, step: int, purpose: str) -> torch.Generator:
    """A CPU generator that depends on its arguments and the worker's replica alone, the same on every machine."""
    replica = f":{distributed.replica()}" if distributed.replica() else ""
    digest = hashlib.sha256(f"{purpose}:{seed}:{step}{replica}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def learning_rate(run: RunConfig, step: int, seconds: float) -> float:
    """Linear warm-up, then constant or half a cosine to zero at the run's limit."""
    warm = min(1.0, (step + 1) / (run.warmup + 1))
    if run.schedule == "constant":
        return run.lr * warm
    done = step / run.steps if run.steps else seconds / (60 * run.minutes)
    return run.lr * warm * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def fit(
    run: RunConfig,
    module: nn.Module,
    loss: Loss,
    sample_batch: Callable[[int], Batch],
    *,
    validate: Validate,
    export: Callable[[nn.Module, Path], None],
    lr_scales: Mapping[str, float] | None = None,
    whole_clips: bool = False,
    remakes_frozen: bool = False,
) -> nn.Module:
    """Train `module` in place until the run's limit and return its EMA, exported to OUT/export.

    `loss(module, tensors, generator)` -> scalar, and scalars to log; `sample_batch(step)` must depend on step alone;
    `validate(ema)` -> numbers to log, and uint8 (H, W, 3) pictures by name; `export(ema, folder)` writes weights.
    lr_scales: factors of the learning rate by the beginning of weights' names; their gradients are clipped apart.
    whole_clips: whether `loss` sees clips in one pass, and of them what this worker holds (train/distributed.py);
    InputError where `run` needs it to. remakes_frozen: weights that are not trained are the same whenever the run is
    started, so snapshots leave them out. On several workers each replica draws its own batches, and rank 0 alone
    validates and exports. Resumes from OUT/snapshots. SIGTERM and SIGINT end the run after the current step, saved.
    Raises DivergedError naming step and batch when the loss is not finite.
    """
    if not whole_clips:
        _refuse_parts(run)
    torch.set_num_threads(run.threads)
    out, device = Path(run.out), torch.device(run.device)
    state = begin(module, device, shard=getattr(torch, run.dtype) if run.shard else None, remakes_frozen=remakes_frozen)
    if run.recompute:
        recompute_blocks(module)
    state.optimizers = optimizer.build(
        module, kind=run.optimizer, lr=run.lr, weight_decay=run.weight_decay, betas=run.betas, scales=lr_scales
    )
    resume(state, out / "snapshots")
    leads = distributed.rank() == 0
    saved = validated = state.seconds
    record = _open_record(run, state) if leads else None
    bar = tqdm(initial=state.step, total=run.steps or None, unit="step", disable=not leads)
    with _stop_signals() as stopped, bar:
        asked = False
        while not asked and not _finished(run, state):
            started = time.monotonic()
            values = _one_step(run, state, loss, sample_batch, device, tuple(lr_scales or ()))
            state.seconds += time.monotonic() - started
            asked, state.seconds = distributed.agree(bool(stopped), state.seconds, device)
            bar.update()
            if record is not None and (means := record.add(state.step, state.seconds, values)):
                bar.set_postfix(loss=f"{means['loss']:.4f}")
            if state.seconds - validated >= 60 * run.validate_minutes:
                validated = state.seconds
                _validate(state, validate, record)
            if state.seconds - saved >= 60 * run.save_minutes:
                saved = state.seconds
                save(state, out / "snapshots", run.keep)
    save(state, out / "snapshots", run.keep)
    shown = _validate(state, validate, record)
    if record is not None:
        export(shown, out / "export")
        record.close()
    return state.ema


def _refuse_parts(run: RunConfig) -> None:
    """Raises InputError where clips or weights are to be held in parts by an objective that can't do so."""
    if run.context > 1:
        raise InputError(f"context: expected 1 where clips are not seen in one pass, got {run.context}")
    if run.shard:  # gradients through caches would reach blocks whose weights were let go
        raise InputError("shard: expected false where clips are not seen in one pass, got true")


def _one_step(
    run: RunConfig,
    state: Progress,
    loss: Loss,
    sample_batch: Callable[[int], Batch],
    device: torch.device,
    apart: Sequence[str],
) -> dict[str, float]:
    batch = sample_batch(state.step)
    tensors = {name: tensor.to(device) for name, tensor in batch.tensors.items()}
    rate = learning_rate(run, state.step, state.seconds)
    for group in (group for each in state.optimizers for group in each.param_groups):
        group["lr"] = rate * group["scale"]
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=run.dtype == "bfloat16"):
        value, logs = loss(state.module, tensors, generator(run.seed, state.step, "loss"))
    if not torch.isfinite(value):
        raise _diverged(run, state, "loss", value, batch)
    value.backward()
    distributed.average_gradients(state.module)
    norm = distributed.clip_gradients(state.module, run.clip, apart)
    if not torch.isfinite(norm):
        raise _diverged(run, state, "gradient norm", norm, batch)
    for each in state.optimizers:
        each.step()
        each.zero_grad(set_to_none=True)
    update_average(state, min(run.ema, (1 + state.step) / (10 + state.step)))  # forget the start of training quickly
    state.step += 1
    values = distributed.average({"loss": value.detach(), "gradient_norm": norm, **logs})
    return {name: float(scalar) for name, scalar in values.items()} | {"lr": rate}


def _diverged(run: RunConfig, state: Progress, name: str, value: Tensor, batch: Batch) -> DivergedError:
    """The error of a figure that is no number; OUT/diverged.json keeps which batch it was."""
    worker = f"_{distributed.rank()}" if distributed.rank() else ""
    about = {"step": state.step, "figure": name, "value": str(value.item()), "batch": list(batch.ids)}
    snapshot.write_file(Path(run.out) / f"diverged{worker}.json", json.dumps(about, indent=1).encode())
    return DivergedError(f"step {state.step}: expected a finite {name}, got {value.item()}; batch {batch.ids}")


def _finished(run: RunConfig, state: Progress) -> bool:
    return 0 < run.steps <= state.step or 0 < 60 * run.minutes <= state.seconds


def _open_record(run: RunConfig, state: Progress) -> Record:
    return Record(Path(run.out), every=run.log_every, board=run.board, step=state.step, recent=state.recent)


def _validate(state: Progress, validate: Validate, record: Record | None) -> nn.Module:
    shown = show(state)
    if record is not None:
        with torch.no_grad():
            numbers, pictures = validate(shown)
        record.held_out(state.step, state.seconds, numbers, pictures)
    return shown


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """A list that fills when the run is asked to end."""
    caught: list[int] = []
    before = {
        number: signal.signal(number, lambda n, _: caught.append(n)) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
