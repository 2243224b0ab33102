"""Measure the speed of a world model on this machine, and of its transformer beside diffusers'.

Prints the tables and writes them as Markdown and JSON. Nothing but torch, numpy, safetensors and tqdm is needed;
without diffusers its rows say so. The times mean something only on a machine that does nothing else: the load average
at the start stands in the report.

    sanawm bench --threads 2                  # or python -m world_model.bench
    sanawm bench --device cuda --out speed    # speed.json and speed.md
    sanawm bench --random                     # the named preset with random weights, which are as fast
"""

import argparse
import dataclasses
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from world_model.bench_diffusers import WORKS, side_by_side
from world_model.bench_work import alternating, full_worlds, next_chunk, path, pictures
from world_model.errors import BackendError, SanaWMError, require, require_one_of
from world_model.model import WorldModel
from world_model.presets import nano, tiny_sana

RANDOM = {"nano": lambda: nano(vocabulary=("room",)), "tiny-sana": tiny_sana}  # what --random can build
PACKAGES = ("torch", "numpy", "safetensors", "diffusers")
MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Speed:
    """One batch size in the steady state: window full. Times are medians; a chunk is all of a step but decoding."""

    batch: int
    reset_ms: float
    forward_ms: float  # one denoising forward of the transformer
    chunk_ms: float  # memory read, conditions, every denoising forward, the clean one, memory written
    decode_ms_per_frame: float  # of one world
    step_ms: float  # chunk and decoding, frames on the CPU
    step_ms_p95: float
    frames_per_second: float  # of all worlds together
    times_realtime: float  # of each world, at the model's own frame rate
    peak_rss_mib: float | None  # of the process until then; None where the system does not tell
    peak_cuda_mib: float | None
    bytes_per_world: int


def speed(model: WorldModel, batch: int, repeats: int) -> Speed:
    """Measure `batch` worlds that step together."""
    config, device = model.config, model.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    state = full_worlds(model, batch)
    poses = path(batch, config.frames_per_step)
    after, latents = model.step_latent(state, poses)
    given, cache = next_chunk(model, state)
    noisy, now = latents.values, torch.full((batch, config.block), 500.0, device=device)
    images = pictures(model, batch)
    works = {
        "reset": lambda: model.reset(images),
        "forward": torch.no_grad()(lambda: model.transformer(noisy, now, given, cache)),
        "chunk": lambda: model.step_latent(state, poses),
        "decode": lambda: model.decode(after, latents),
        "step": lambda: model.step(state, poses),
    }
    taken = alternating(works, repeats, device, f"batch {batch}")
    per_second = 1000 * batch * config.frames_per_step / taken["step"].median
    return Speed(
        batch=batch,
        reset_ms=taken["reset"].median,
        forward_ms=taken["forward"].median,
        chunk_ms=taken["chunk"].median,
        decode_ms_per_frame=taken["decode"].median / batch / config.frames_per_step,
        step_ms=taken["step"].median,
        step_ms_p95=taken["step"].quantile(0.95),
        frames_per_second=per_second,
        times_realtime=per_second / batch / config.fps,
        peak_rss_mib=peak_rss_mib(),
        peak_cuda_mib=torch.cuda.max_memory_allocated(device) / MIB if device.type == "cuda" else None,
        bytes_per_world=state.bytes_per_world(),
    )


def peak_rss_mib() -> float | None:
    """The most memory that this process has had resident; None on systems without getrusage."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024  # macOS counts bytes, others KiB


def machine(device: torch.device) -> dict[str, Any]:
    """What the times depend on: hardware, threads, versions, and what else ran when the bench began."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        **{package: installed(package) for package in PACKAGES},
    }


def installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def describe(model: WorldModel) -> dict[str, Any]:
    config = model.config
    return {
        "fingerprint": model.fingerprint,
        "transformer_parameters": sum(p.numel() for p in model.transformer.parameters()),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "frame": [config.tokenizer.height, config.tokenizer.width],
        "frames_per_step": config.frames_per_step,
        "forwards_per_chunk": len(config.steps),  # the last one is clean and writes the memory
        "window_latents": config.sink + config.recent,
        "fps": config.fps,
    }


def measure(model: WorldModel, batches: Sequence[int], repeats: int) -> dict[str, Any]:
    """Everything that the report holds but the command line, as plain JSON values."""
    facts = {"model": describe(model), "machine": machine(model.device), "repeats": repeats}
    speeds = [dataclasses.asdict(speed(model, batch, repeats)) for batch in sorted(batches)]
    try:
        beside = dataclasses.asdict(side_by_side(model, min(batches), repeats))
    except BackendError as error:
        beside = {"diffusers": None, "reason": str(error)}
    return facts | {"speed": speeds, "side_by_side": beside}


def markdown(report: dict[str, Any]) -> str:
    """The report for people."""
    speeds = report["speed"]
    lines = [f"# Speed of {report['model']['fingerprint']}", "", f"`{report['command']}`, {report['date']}", ""]
    for title in ("model", "machine"):
        lines += [f"* {title}: " + ", ".join(f"{k} {v}" for k, v in report[title].items() if v is not None)]
    lines += ["", f"Medians of {report['repeats']} rounds that alternate between all rows.", ""]
    lines += ["| | " + " | ".join(f"batch {row['batch']}" for row in speeds) + " |", "|---|" + "---:|" * len(speeds)]
    for name in speeds[0]:
        if name != "batch":
            lines += [f"| {name.replace('_', ' ')} | " + " | ".join(figure(row[name]) for row in speeds) + " |"]
    return "\n".join([*lines, "", *markdown_beside(report["side_by_side"])]) + "\n"


def markdown_beside(beside: dict[str, Any]) -> list[str]:
    head = "| work | ours, ms | diffusers as shipped, ms | diffusers in float32, ms | ratio |"
    lines = ["## The transformer beside diffusers'", "", head, "|---|---:|---:|---:|---:|"]
    if beside["diffusers"] is None:
        return [*lines, *(f"| {work} | | {beside['reason']} | | |" for work in WORKS)]
    for row in beside["rows"]:
        times = (figure(row[name]) for name in ("ours_ms", "diffusers_ms", "diffusers_float32_ms"))
        lines += [f"| {row['work']} | {' | '.join(times)} | **{row['ratio']:.2f}x** |"]
    lines += [
        "",
        f"Same weights and inputs, batch {beside['batch']}, diffusers {beside['diffusers']}; a ratio takes its",
    ]
    lines += [f"faster variant. The dense float32 velocities differ by {beside['difference']:.1e} (relative).", ""]
    return lines + [f"* {row['work']}: {row['meaning']}." for row in beside["rows"]]


def figure(value: float | None) -> str:
    """A number with three or four digits that count; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano", help="a shipped model by name, or a folder (default: nano)")
    parser.add_argument("--random", action="store_true", help=f"random weights of a preset: {', '.join(RANDOM)}")
    parser.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's own choice)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="worlds that step together (default: 1 8)")
    parser.add_argument("--repeats", type=int, default=20, help="rounds (default: 20)")
    parser.add_argument("--out", type=Path, default=Path("bench"), help="write OUT.json and OUT.md (default: bench)")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """The command `sanawm bench`. Raises InputError, CheckpointError, BackendError."""
    options = parser().parse_args(argv)
    for name in ("threads", "repeats"):
        value = getattr(options, name)
        require(value is None or value > 0, f"--{name}: expected a positive number, got {value}")
    require(min(options.batch) > 0, f"--batch: expected positive numbers, got {options.batch}")
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        raise BackendError(f"--device: expected a device of this machine, got {options.device!r} without CUDA")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.random:
        require_one_of("--model with --random", options.model, *RANDOM)
        model = WorldModel.random(RANDOM[options.model]())
        parts = (part.to(options.device) for part in (model.transformer, model.tokenizer, model.text))
        model = WorldModel(model.config, *parts)
    else:
        model = WorldModel.from_pretrained(options.model, options.device)
    words = sys.argv[1:] if argv is None else argv
    command = shlex.join(["sanawm", "bench", *words])
    facts = {"format": 1, "command": command, "date": time.strftime("%Y-%m-%d %H:%M %Z"), "random": options.random}
    report = facts | measure(model, options.batch, options.repeats)
    text = markdown(report)
    print(text)
    for suffix, content in ((".md", text), (".json", json.dumps(report, indent=1) + "\n")):
        file = options.out.with_suffix(suffix)
        file.write_text(content, encoding="utf-8")
        print(f"written: {file.resolve()}")


if __name__ == "__main__":
    try:
        main()
    except SanaWMError as error:
        sys.exit(f"bench: {error}")
