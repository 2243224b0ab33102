"""The world model as two functions of values: `reset` makes worlds of pictures, `step` moves them.

    model = WorldModel.from_pretrained("nano")
    state, frames = model.reset([image], prompts=["a room"], seeds=[7])   # frames (B, 1, H, W, 3)
    state, frames = model.step(state, poses)                              # frames (B, F, H, W, 3)

No call changes a state that it was given. Poses are camera-to-world relative to the start frame, metres, OpenCV axes.

Shapes: B worlds, F frames of a step, n latents of a step, H, W pixels, C latent channels, Y, X latent cells.
"""

import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from world_model import checkpoint
from world_model.checkpoint import config_to_json
from world_model.checks import check_poses
from world_model.config import WorldConfig
from world_model.dynamics import advance, new_worlds
from world_model.errors import InputError, StateError
from world_model.images import fit_images
from world_model.lanes import in_lanes, lane_count
from world_model.refiner import Refiner, load_refiner, refine
from world_model.sampler import latent_noise
from world_model.state import WorldState
from world_model.text import WordEncoder
from world_model.transformer import SanaWM
from world_model.vae import VideoTokenizer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LatentChunk:
    """New latents of one step, and the index of the first in each world."""

    index: Tensor  # (B,) int64
    values: Tensor  # (B, C, n, Y, X)


class WorldModel:
    """A trained transformer with its tokenizer and text encoder. Worlds live in WorldState, not here."""

    def __init__(
        self,
        config: WorldConfig,
        transformer: SanaWM,
        tokenizer: VideoTokenizer,
        text: WordEncoder,
        refiner: Refiner | None = None,
    ) -> None:
        self.config, self.refiner = config, refiner
        self.transformer, self.tokenizer, self.text = (
            m.eval().requires_grad_(False) for m in (transformer, tokenizer, text)
        )
        self.fingerprint = fingerprint(config, (transformer, tokenizer, text))
        if refiner is not None:
            refiner.transformer.eval().requires_grad_(False)
            self.fingerprint += fingerprint(refiner.config, (refiner.transformer,)).removeprefix(config.name)
            log.info("refiner of %s: %s, beside %d of the world model", config.name, refiner.cost(), len(config.steps))
        self.size = config.tokenizer.height, config.tokenizer.width
        log.info("world model %s: delta rule by %r on %s", config.name, config.transformer.backend, self.device)

    @classmethod
    def from_pretrained(
        cls, name: str | Path, device: str | torch.device = "cpu", *, refine: bool = False
    ) -> "WorldModel":
        """A shipped model by name ("nano") or a folder. Raises CheckpointError for anything else.

        refine: with the folder's refiner, whose cost is logged; a folder without one raises CheckpointError.
        """
        folder = checkpoint.find(name)
        config, parts = checkpoint.load_folder(folder)
        refiner = load_refiner(folder, config) if refine else None
        if refiner is not None:
            refiner.transformer.to(device)
        return cls(config, *(part.to(device) for part in parts), refiner)

    @classmethod
    def random(cls, config: WorldConfig, seed: int = 0) -> "WorldModel":
        """Untrained weights, for tests and as a start of training."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(config, *checkpoint.build_parts(config))

    @property
    def device(self) -> torch.device:
        return self.transformer.final_layer.linear.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.transformer.final_layer.linear.weight.dtype

    @torch.no_grad()
    def reset(
        self,
        images: Sequence[ArrayLike] | np.ndarray,
        prompts: Sequence[str] | None = None,
        intrinsics: ArrayLike | None = None,
        seeds: Sequence[int] | None = None,
    ) -> tuple[WorldState, Tensor]:
        """New worlds and their start frames as the model sees them, (B, 1, H, W, 3) uint8 on the CPU.

        images: B pictures (h, w, 3) uint8 of any size, resized to cover the frame and cropped at the centre.
        prompts: default empty. intrinsics: fx, fy, cx, cy in pixels of the given pictures, (4,) or (B, 4); default a
        horizontal field of view of 70 degrees. seeds: default 0..B-1. Raises InputError.
        """
        if len(images) == 0:
            raise InputError("images: expected at least one, got none")
        frames, lenses = fit_images(images, intrinsics, self.size)
        count = len(frames)
        prompts = [""] * count if prompts is None else prompts
        if isinstance(prompts, str) or len(prompts) != count or not all(isinstance(p, str) for p in prompts):
            raise InputError(f"prompts: expected {count} strings, one an image, got {prompts!r}")
        seeds = range(count) if seeds is None else seeds
        ids, mask = self.text.tokenize(list(prompts))
        unused = 1 + self.config.text.max_words - ids.shape[1]  # one length for all, so that worlds can share a batch
        ids, mask = (nn.functional.pad(x, (0, unused)) for x in (ids, mask))
        video = to_video(frames[:, None].to(self.device), self.dtype)
        start, text = self.tokenizer.encode(video), self.text(ids.to(self.device))
        args = start, lenses, text, mask, seeds, self.fingerprint
        state = new_worlds(self.transformer, self.config, *args)
        if self.refiner is not None:
            state = dataclasses.replace(
                state, refined=(new_worlds(self.refiner.transformer, self.refiner.config, *args),)
            )
        return state, frames[:, None]

    def step(
        self, state: WorldState, poses: ArrayLike, *, noise: Tensor | None = None, donate: bool = False
    ) -> tuple[WorldState, Tensor]:
        """The worlds one chunk later, and its frames (B, F, H, W, 3) uint8 on the CPU.

        poses (B, F, 4, 4), one a coming frame. noise (B, C, n, Y, X): instead of the worlds' own. donate: consume
        `state`, which then raises when used again. Raises InputError, StateError.
        """
        after, latents = self.step_latent(state, poses, noise=noise)
        if donate:
            state.consume()
        return self.decode(after, latents)

    @torch.no_grad()
    def step_latent(
        self, state: WorldState, poses: ArrayLike, *, noise: Tensor | None = None
    ) -> tuple[WorldState, LatentChunk]:
        """The first half of `step`: the chunk's latents, not decoded yet; refined ones where there is a refiner."""
        self._check_state(state)
        path = self._check_poses(state, poses)
        block, index = self.config.block, state.index.clamp_min(1)
        shape = (self.config.tokenizer.latent_channels, *self.config.tokenizer.grid)
        if noise is None:
            noise = latent_noise(state.seed, index[:, None] + torch.arange(block), shape)
        expected = (len(state), shape[0], block, *shape[1:])
        if noise.shape != expected or not noise.is_floating_point():
            raise InputError(f"noise: expected {expected} floating point, got {tuple(noise.shape)} {noise.dtype}")
        noise, lanes = noise.to(self.device, self.dtype), lane_count(len(state), self.device)
        after, latents = advance(self.transformer, self.config, state, path, noise, lanes=lanes)
        if self.refiner is not None:
            refined, latents = refine(self.refiner, state.refined[0], latents, path)
            after = dataclasses.replace(after, refined=(refined,))
        return after, LatentChunk(index, latents)

    @torch.no_grad()
    def decode(self, state: WorldState, latents: LatentChunk) -> tuple[WorldState, Tensor]:
        """The frames of the latents that come next in every world, (B, F, H, W, 3) uint8 on the CPU.

        Raises StateError when they are not the next ones, naming both indices.
        """
        self._check_state(state)
        if state.decoded.tolist() != latents.index.tolist():
            raise StateError(
                f"decode: expected latents from index {state.decoded.tolist()}, got {latents.index.tolist()}"
            )

        def show(worlds: slice) -> tuple[Tensor, Tensor]:
            video, previous = self.tokenizer.decode(latents.values[worlds], state.previous[worlds])
            return to_frames(video), previous

        frames, previous = in_lanes(show, len(state), lane_count(len(state), self.device))
        decoded = state.decoded + latents.values.shape[2]
        # contiguous, since a slice would keep the whole chunk in memory for as long as the world lives
        return dataclasses.replace(state, previous=previous.contiguous(), decoded=decoded), frames

    def _check_state(self, state: WorldState) -> None:
        if state.model != self.fingerprint:
            raise StateError(f"expected a state of model {self.fingerprint}, got one of {state.model}")

    def _check_poses(self, state: WorldState, poses: ArrayLike) -> Tensor:
        path = poses if isinstance(poses, Tensor) else torch.tensor(np.asarray(poses))
        shape = (len(state), self.config.frames_per_step, 4, 4)
        if path.shape != shape or not path.is_floating_point():
            raise InputError(f"poses: expected {shape} floating point, got {tuple(path.shape)} {path.dtype}")
        check_poses(path)
        return path.to(self.device, torch.float32)


def to_video(frames: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, F, H, W, 3) uint8 -> (B, 3, F, H, W) in [-1, 1]."""
    return frames.permute(0, 4, 1, 2, 3).to(dtype) / 127.5 - 1


def to_frames(video: Tensor) -> Tensor:
    """(B, 3, F, H, W) in [-1, 1] -> (B, F, H, W, 3) uint8 on the CPU; rounded on the device, before the copy."""
    pixels = (video.float() + 1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 4, 1).contiguous().cpu()


def fingerprint(config: WorldConfig, parts: Sequence[torch.nn.Module]) -> str:
    """Which model this is: a hash of its config and of a sample of every tensor."""
    digest = hashlib.sha256(config_to_json(config).encode())
    for part in parts:
        for name, tensor in part.state_dict().items():
            sample = tensor.detach().flatten()[:: max(1, tensor.numel() // 64)][:64]
            digest.update(name.encode() + sample.float().cpu().numpy().tobytes())
    return f"{config.name}-{digest.hexdigest()[:16]}"
