"""What a world model plays beside what was true, for its refiner, a judge and a decoder to learn from: pairs of clips,
made once.

A folder of parts (train/parts.py), one batch each. Part i is a function of (seed, i).

Shapes: B clips, C channels, T latents, Y, X cells, F frames, L words.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from world_model.config import TextConfig
from world_model.errors import CheckpointError, InputError
from world_model.train import parts
from world_model.train.data.latents import open_latents
from world_model.train.flow_model import batch_of, full_length_words
from world_model.train.loop import generator
from world_model.train.rollout import rollout
from world_model.train.trajectories import load_model

KEPT = ("latents", "poses", "intrinsics", "ids", "mask")  # of a batch, beside what the model made of it


@dataclass(frozen=True, kw_only=True)
class PairsRun:
    """`python -m world_model.train pairs`."""

    world: str  # model folder
    data: str  # folder of encoded episodes
    out: str
    count: int = 512  # pairs
    latents: int = 17  # of a clip, the start included: the start and four seconds
    batch: int = 8
    seed: int = 0
    device: str = "cpu"
    threads: int = 1

    def __post_init__(self) -> None:
        if min(self.count, self.batch) < 1 or self.latents < 2:
            raise InputError(
                f"pairs: expected count, batch >= 1 and latents >= 2, got {self.count}, {self.batch}, {self.latents}"
            )


@dataclass(frozen=True, kw_only=True)
class PairDataset:
    """All pairs of a folder, in memory."""

    tensors: dict[str, Tensor]  # made, latents (N, C, T, Y, X) bfloat16; poses, intrinsics, ids, mask

    def sample(self, batch: int, draw: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
        """Random pairs, latents in float32, and their numbers (B,)."""
        chosen = torch.randint(len(self.tensors["made"]), (batch,), generator=draw)
        return self._pairs(chosen), chosen

    def first(self, count: int) -> dict[str, Tensor]:
        """The first pairs, at most `count`."""
        return self._pairs(slice(count))

    def _pairs(self, chosen: Tensor | slice) -> dict[str, Tensor]:
        tensors = {name: x[chosen] for name, x in self.tensors.items()}
        return tensors | {name: tensors[name].float() for name in ("made", "latents")}


def train(config: PairsRun) -> None:
    """Make the pairs that OUT lacks. Raises CheckpointError when OUT is of another model or run."""
    torch.set_num_threads(config.threads)
    model, data, out = load_model(Path(config.world), config.device), open_latents(Path(config.data)), Path(config.out)
    made_of = {k: v for k, v in dataclasses.asdict(config).items() if k not in ("out", "count", "device", "threads")}
    index = parts.open_index(out, {"run": made_of, "text": dataclasses.asdict(model.config.text)})
    for part in tqdm(range(len(index["parts"]), -(-config.count // config.batch)), desc="pairs", unit="batch"):
        draw = generator(config.seed, part, "pairs")
        batch = batch_of(data, model.text, config.batch, config.latents, draw, 0.0)
        tensors = batch.tensors
        noise = torch.randn(tensors["latents"][:, :, 1:].shape, generator=draw).to(config.device)
        with torch.no_grad():
            made = rollout(model, model.clips({name: x.to(config.device) for name, x in tensors.items()}), noise)
        kept = {name: tensors[name].contiguous() for name in KEPT}
        kept["latents"] = kept["latents"].bfloat16()
        kept |= full_length_words(tensors, model.config.text.max_words)
        parts.add_part(out, index, {"made": made.bfloat16().cpu().contiguous(), **kept}, batch.ids)


def open_pairs(folder: Path, text: TextConfig) -> PairDataset:
    """Read what `train` wrote. Raises CheckpointError when it is broken or of a model with other words."""
    got = parts.read_index(folder).get("text", {})
    if dataclasses.asdict(text) != got | {"vocabulary": tuple(got.get("vocabulary", ()))}:
        raise CheckpointError(f"{folder}: expected pairs of a model with text {text}, got {got}")
    return PairDataset(tensors=parts.read_parts(folder))
