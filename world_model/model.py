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
from torch import Tensor

from world_model import checkpoint
from world_model.attention import DeltaCache, Grid
from world_model.camera import cell_intrinsics, check_poses, chunk_camera, start_camera
from world_model.checkpoint import config_to_json
from world_model.config import WorldConfig
from world_model.errors import InputError, StateError
from world_model.images import fit_images
from world_model.memory import read_memory, write_memory
from world_model.sampler import latent_noise, sample_chunk
from world_model.state import WorldState
from world_model.text import WordEncoder
from world_model.transformer import BlockCache, Conditions, SanaWM
from world_model.vae import VideoTokenizer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LatentChunk:
    """New latents of one step, and the index of the first in each world."""

    index: Tensor  # (B,) int64
    values: Tensor  # (B, C, n, Y, X)


class WorldModel:
    """A trained transformer with its tokenizer and text encoder. Worlds live in WorldState, not here."""

    def __init__(self, config: WorldConfig, transformer: SanaWM, tokenizer: VideoTokenizer, text: WordEncoder) -> None:
        self.config = config
        self.transformer, self.tokenizer, self.text = (m.eval().requires_grad_(False) for m in (transformer, tokenizer, text))
        self.fingerprint = fingerprint(config, (transformer, tokenizer, text))
        self.size = config.tokenizer.height, config.tokenizer.width
        log.info("world model %s: delta rule by %r on %s", config.name, config.transformer.backend, self.device)

    @classmethod
    def from_pretrained(cls, name: str | Path, device: str | torch.device = "cpu") -> "WorldModel":
        """A shipped model by name ("nano") or a folder. Raises CheckpointError for anything else."""
        config, parts = checkpoint.load_folder(checkpoint.find(name))
        return cls(config, *(part.to(device) for part in parts))

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
        prompts = [""] * count if prompts is None else list(prompts)
        seeds = list(range(count)) if seeds is None else [int(s) for s in seeds]
        for name, got in (("prompts", prompts), ("seeds", seeds)):
            if len(got) != count:
                raise InputError(f"{name}: expected {count}, one an image, got {len(got)}")
        ids, mask = self.text.tokenize(prompts)
        video = to_video(frames[:, None].to(self.device), self.dtype)
        state = self._empty_state(self.tokenizer.encode(video), lenses, self.text(ids.to(self.device)), mask, seeds)
        if not self.config.pending_start:
            state = self._write_start(state)
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
        """The first half of `step`: the chunk's latents, not decoded yet."""
        self._check_state(state)
        path = self._check_poses(state, poses)
        block, index = self.config.block, state.index.clamp_min(1)
        if noise is None:
            shape = (self.config.tokenizer.latent_channels, *self.config.tokenizer.grid)
            noise = latent_noise(state.seed, index[:, None] + torch.arange(block), shape)
        noise = noise.to(self.device, self.dtype)
        pending = (state.index == 0).tolist()
        phases = [[i for i, p in enumerate(pending) if p == phase] for phase in (True, False)]
        parts = [(g, self._step_phase(state if len(g) == len(state) else state[g], path[g], noise[g])) for g in phases if g]
        if len(parts) == 1:
            after, latents = parts[0][1]
        else:  # worlds before and after their first chunk differ in length: two forwards, then back in order
            order = torch.tensor([i for group, _ in parts for i in group]).argsort()
            after = WorldState.cat([part[0] for _, part in parts])[order.tolist()]
            latents = torch.cat([part[1] for _, part in parts])[order]
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
        video, previous = self.tokenizer.decode(latents.values, state.previous)
        decoded = state.decoded + latents.values.shape[2]
        return dataclasses.replace(state, previous=previous, decoded=decoded), to_frames(video)

    def _empty_state(self, start: Tensor, lenses: Tensor, text: Tensor, mask: Tensor, seeds: list[int]) -> WorldState:
        count, cfg = len(start), self.config.transformer
        caches = self.transformer.empty_cache(count, Grid(1, *start.shape[-2:], (1,)), start)
        return WorldState(
            model=self.fingerprint,
            index=torch.zeros(count, dtype=torch.int64),
            decoded=torch.ones(count, dtype=torch.int64),  # reset itself hands out frame 0
            seed=torch.tensor(seeds),
            pose=torch.eye(4, device=self.device).repeat(count, 1, 1),
            intrinsics=lenses.to(self.device),
            text=text,
            text_mask=mask.to(self.device),
            start=start,
            previous=start,
            delta=tuple(c.mixer for c in caches if isinstance(c.mixer, DeltaCache)),
            tails=tuple(c.feed_forward for c in caches),
            window=(),
        )

    def _write_start(self, state: WorldState) -> WorldState:
        """The clean pass over the start latent alone, after which every step is alike."""
        grid, stride = self.config.tokenizer.grid, self.config.tokenizer.temporal_stride
        camera, plucker = start_camera(cell_intrinsics(state.intrinsics, self.size, grid), grid, stride)
        given, cache = self._condition(state, camera, plucker)
        written = self.transformer(state.start, torch.zeros(len(state), 1, device=self.device), given, cache)[1]
        return dataclasses.replace(write_memory(state, written, self.config), index=state.index + 1)

    def _step_phase(self, state: WorldState, path: Tensor, noise: Tensor) -> tuple[WorldState, Tensor]:
        """One chunk of worlds that all have, or all lack, their first chunk."""
        grid, stride = self.config.tokenizer.grid, self.config.tokenizer.temporal_stride
        lens = cell_intrinsics(state.intrinsics, self.size, grid)
        reference = self.config.plucker_reference
        camera, plucker = chunk_camera(state.pose, path, lens, grid, stride, reference)
        start = None
        if state.index[0] == 0:
            start = state.start
            seen = torch.cat([state.pose[:, None], path[:, : stride - 1]], 1)
            first = start_camera(lens, grid, stride, seen if self.config.first_plucker == "overlap" else None)
            camera, plucker = torch.cat([first[0], camera], 1), torch.cat([first[1], plucker], 2)
            noise = torch.cat([start, noise], 2)
        given, cache = self._condition(state, camera, plucker)
        latents, written = sample_chunk(self.transformer, given, cache, noise, self.config.steps, start)
        after = write_memory(state, written, self.config)
        after = dataclasses.replace(after, index=state.index + noise.shape[2], pose=path[:, -1].clone())
        return after, latents[:, :, -self.config.block :]

    def _condition(self, state: WorldState, camera: Tensor, plucker: Tensor) -> tuple[Conditions, tuple[BlockCache, ...]]:
        cache, past, past_mask = read_memory(state, self.config)
        frame_index = (state.index[:, None] + torch.arange(camera.shape[1])).to(self.device)
        given = self.transformer.condition(
            state.text, state.text_mask, camera, plucker, frame_index, past=past, past_mask=past_mask
        )
        return given, cache

    def _check_state(self, state: WorldState) -> None:
        state.check_alive()
        if state.model != self.fingerprint:
            raise StateError(f"expected a state of model {self.fingerprint}, got one of {state.model}")

    def _check_poses(self, state: WorldState, poses: ArrayLike) -> Tensor:
        path = torch.as_tensor(np.asarray(poses) if not isinstance(poses, Tensor) else poses)
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
    pixels = ((video.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 4, 1).contiguous().cpu()


def fingerprint(config: WorldConfig, parts: Sequence[torch.nn.Module]) -> str:
    """Which model this is: a hash of its config and of a sample of every tensor."""
    digest = hashlib.sha256(config_to_json(config).encode())
    for part in parts:
        for name, tensor in part.state_dict().items():
            sample = tensor.detach().flatten()[:: max(1, tensor.numel() // 64)][:64]
            digest.update(name.encode() + sample.float().cpu().numpy().tobytes())
    return f"{config.name}-{digest.hexdigest()[:16]}"
