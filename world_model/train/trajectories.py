"""Teacher trajectories for distillation: what a many-step sampler passes through on its way from noise to data.

A folder of parts (train/parts.py), one batch each; the index also holds the times of the snapshots and the teacher's
words. Part i is a function of (seed, i), so a run that was killed goes on where it was.

Shapes: B clips, K snapshots, C channels, T latents, Y, X cells, F frames, L words.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from world_model import whole_clip
from world_model.checkpoint import load_folder
from world_model.config import TextConfig, WorldConfig
from world_model.errors import CheckpointError, InputError
from world_model.train import parts
from world_model.train.data.latents import open_latents
from world_model.train.flow_model import FlowModel, batch_of, full_length_words
from world_model.train.loop import generator

KEPT = ("poses", "intrinsics", "ids", "mask")  # of a batch, beside the snapshots


@dataclass(frozen=True, kw_only=True)
class TrajectoryRun:
    """`python -m world_model.train trajectories`."""

    teacher: str  # model folder, trained in mode "bidirectional" (chunks of the whole clip) or "chunk_causal"
    mode: str = "bidirectional"
    data: str  # folder of encoded episodes: start latents, cameras and captions come from there
    out: str
    count: int = 256  # trajectories
    latents: int = 9  # of a clip
    batch: int = 8
    times: tuple[int, ...] = (1000, 750, 0)  # of the snapshots: the student's step list
    steps: int = 40  # of the teacher
    shift: float = 3.0
    guidance: float = 1.0
    seed: int = 0
    device: str = "cpu"
    threads: int = 1

    def __post_init__(self) -> None:
        if self.mode not in ("bidirectional", "chunk_causal"):
            raise InputError(f"mode: expected 'bidirectional' or 'chunk_causal', got {self.mode!r}")
        falling = list(self.times) == sorted(set(self.times), reverse=True)
        if not falling or self.times[:1] != (1000,) or self.times[-1] != 0:
            raise InputError(f"times: expected strictly falling times from 1000 to 0, got {self.times}")
        if min(self.count, self.batch, self.steps) < 1:
            raise InputError(f"expected count, batch, steps >= 1, got {self.count}, {self.batch}, {self.steps}")


def load_model(folder: Path, device: str = "cpu") -> FlowModel:
    """The trained parts of a model folder, in eval mode. Raises CheckpointError."""
    config, (transformer, tokenizer, text) = load_folder(folder)
    model = FlowModel(config, tokenizer.sensitivity())
    model.transformer, model.text = transformer, text
    return model.to(device).eval()


def train(config: TrajectoryRun) -> None:
    """Make the trajectories that OUT lacks. Raises CheckpointError when OUT is of another teacher or run."""
    torch.set_num_threads(config.threads)
    teacher, data, out = (
        load_model(Path(config.teacher), config.device),
        open_latents(Path(config.data)),
        Path(config.out),
    )
    about = {
        "times": list(config.times),
        "run": {k: v for k, v in dataclasses.asdict(config).items() if k not in ("out", "count", "device", "threads")},
        "text": dataclasses.asdict(teacher.config.text),
    }
    index = parts.open_index(out, about)
    for part in tqdm(range(len(index["parts"]), -(-config.count // config.batch)), desc="trajectories", unit="batch"):
        draw = generator(config.seed, part, "trajectories")
        batch = batch_of(data, teacher.text, config.batch, config.latents, draw, 0.0)
        tensors = batch.tensors
        made = snapshots(teacher, {name: x.to(config.device) for name, x in tensors.items()}, config, draw)
        kept = {name: tensors[name].contiguous() for name in KEPT}
        kept |= full_length_words(tensors, teacher.config.text.max_words)
        parts.add_part(out, index, {"snapshots": made.bfloat16().cpu(), **kept}, batch.ids)


@torch.no_grad()
def snapshots(
    teacher: FlowModel, tensors: Mapping[str, Tensor], config: TrajectoryRun, draw: torch.Generator
) -> Tensor:
    """The teacher's latents at each of `config.times`, (B, K, C, T, Y, X), from fresh noise and true start latents."""
    clips = teacher.clips(tensors)
    noise = torch.randn(clips.latents.shape, generator=draw).to(clips.latents)
    times = whole_clip.euler_times(config.steps, config.shift, config.times)
    frames = noise.shape[2]
    chunks = (frames,) if config.mode == "bidirectional" else whole_clip.training_chunks(frames, teacher.config)
    path = whole_clip.denoise(
        teacher.transformer, teacher.config, clips, noise, times, guidance=config.guidance, chunks=chunks
    )
    return torch.stack([latents for time, latents in path if time in config.times], 1)


@dataclass(frozen=True, kw_only=True)
class TrajectoryDataset:
    """All trajectories of a folder, in memory: snapshots (N, K, C, T, Y, X) bfloat16, and what they were made for."""

    times: tuple[int, ...]
    tensors: Mapping[str, Tensor]

    def sample(self, batch: int, draw: torch.Generator) -> dict[str, Tensor]:
        """Random trajectories: `snapshots` (B, K, C, T, Y, X) float32, poses, intrinsics, ids, mask."""
        chosen = torch.randint(len(self.tensors["snapshots"]), (batch,), generator=draw)
        drawn = {name: x[chosen] for name, x in self.tensors.items()}
        return {**drawn, "snapshots": drawn["snapshots"].float()}


def open_trajectories(folder: Path, world: WorldConfig) -> TrajectoryDataset:
    """Read what `train` wrote, for a student with this config.

    Raises CheckpointError on a missing or changed part, other words than the student's, or other times than its steps.
    """
    index = parts.read_index(folder)
    times = tuple(index["times"])
    for name, expected, got in (
        ("times", world.steps, times),
        ("text", world.text, TextConfig(**{**index["text"], "vocabulary": tuple(index["text"]["vocabulary"])})),
    ):
        if expected != got:
            raise CheckpointError(f"{folder}: expected trajectories with the student's {name}, {expected}, got {got}")
    return TrajectoryDataset(times=times, tensors=parts.read_parts(folder))
