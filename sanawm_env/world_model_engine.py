"""The world model as an engine: frames are generated. Pickles without weights if they were named."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sanawm_env.engine import Chunk, Pixels
from sanawm_env.models import find_device, shared_model
from sanawm_env.starts import Start, choose_start
from world_model.config import WorldConfig
from world_model.errors import InputError
from world_model.images import default_intrinsics
from world_model.model import WorldModel, to_video
from world_model.state import WorldState


class WorldModelEngine:
    """Generates frames. See `sanawm_env.engine.Engine`.

    model: a shipped name, a folder, or a WorldModel; device: as torch names it, None: "cpu", or the WorldModel's own.
    Raises CheckpointError, InputError, BackendError.
    """

    signals = ()
    has_latents = True

    def __init__(self, model: str | Path | WorldModel, device: str | None = None) -> None:
        self._source: tuple[str | Path, str] | None = None  # where to read the weights again
        if isinstance(model, WorldModel):
            if device is not None and find_device(device) != model.device:
                raise InputError(f"device: expected the model's own, {model.device}, or none, got {device!r}")
            self.model = model
        else:
            self._source = model, device or "cpu"
            self.model = shared_model(*self._source)

    @property
    def config(self) -> WorldConfig:
        return self.model.config

    @property
    def fingerprint(self) -> str:
        return self.model.fingerprint

    def choose(self, options: Mapping[str, Any] | None, bank: Sequence[Start], rng: np.random.Generator) -> Start:
        return choose_start(options, bank, rng)

    def begin(self, starts: Sequence[Start], seeds: Sequence[int], pixels: Pixels) -> tuple[WorldState, Chunk]:
        lenses = np.stack([default_lens(s) if s.intrinsics is None else s.intrinsics for s in starts])
        images, prompts = [s.image for s in starts], [s.prompt for s in starts]
        worlds, frames = self.model.reset(images, prompts, lenses, seeds)
        return worlds, Chunk(
            poses=np.tile(np.eye(4), (len(starts), 1, 1, 1)),
            frames=None if pixels == "none" else frames.numpy(),
            latents=to_array(worlds.start[:, :, 0]),
            signals=({},) * len(starts),
        )

    def intrinsics(self, worlds: WorldState) -> np.ndarray:
        return worlds.intrinsics.cpu().numpy().copy()

    def advance(self, worlds: WorldState, paths: np.ndarray, pixels: Pixels) -> tuple[WorldState, Chunk]:
        worlds, chunk = self.model.step_latent(worlds, paths)
        frames = None
        if pixels != "none":  # frames of a latent cannot be decoded one by one
            worlds, decoded = self.model.decode(worlds, chunk)
            frames = decoded.numpy()
        latents = to_array(chunk.values[:, :, -1])
        return worlds, Chunk(poses=paths, frames=frames, latents=latents, signals=({},) * len(paths))

    @torch.no_grad()
    def encode(self, picture: np.ndarray) -> np.ndarray:
        """The latents (C, Y, X) float32 of a picture (H, W, 3) uint8 of the frames' size, as of a start picture."""
        frames = torch.tensor(picture)[None, None].to(self.model.device)
        return to_array(self.model.tokenizer.encode(to_video(frames, self.model.dtype))[0, :, 0])

    def close(self) -> None:
        """Nothing: weights are shared by all of the process."""

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | ({"model": None} if self._source else {})

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._source:
            self.model = shared_model(*self._source)


def to_array(latents: torch.Tensor) -> np.ndarray:
    return latents.float().cpu().numpy()


def default_lens(start: Start) -> np.ndarray:
    """The intrinsics (4,) float32 of a start picture that has none."""
    return default_intrinsics(*start.image.shape[:2]).numpy()
