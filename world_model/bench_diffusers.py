"""The transformer side by side with diffusers' `SanaWMTransformer3DModel`: same weights, same shapes, same run.

The same work is the same answer for the newest chunk of a world, given the same context. Ours reads that context from
its cache. The diffusers module has none: it runs the context itself, densely, in every forward. The context is the
least that a world remembers, sink + recent + the chunk's own latents, although a world of diffusers that forgets
nothing would have to run all latents since its start.

Both compute what diffusers defines (RMS envelope on, its softmax temperatures) with the weights of the measured
model. It casts softmax attention to bfloat16; it is measured as shipped and with that cast removed, and every ratio
takes the faster of the two.

Shapes: B worlds, T latents of the context, n latents of a step, C channels, Y, X cells, L words, E features.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata

import torch
from torch import Tensor, nn

from world_model.bench_work import alternating, camera_ahead, full_worlds, next_chunk, path
from world_model.config import TransformerConfig
from world_model.errors import BackendError
from world_model.model import WorldModel
from world_model.released import ignored_keys
from world_model.state import WorldState
from world_model.transformer import SanaWM

WORKS = {
    "chunk": "a latent step. Ours: memory read, conditions, {forwards} denoising forwards of {block} latent(s) "
    "on the cache, one clean forward, memory written. diffusers: {forwards} forwards of {context} latents",
    "velocity": "one velocity of the newest chunk. Ours: memory read, conditions, one forward of {block} latent(s) on "
    "the cache. diffusers: one forward of {context} latents",
    "dense": "like for like, no cache: conditions and one forward of {context} latents on both sides",
}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One work done by both; times are medians in milliseconds, ratio is diffusers' faster variant over ours."""

    work: str
    meaning: str
    ours_ms: float
    diffusers_ms: float  # as shipped
    diffusers_float32_ms: float  # without its cast of softmax attention to bfloat16
    ratio: float


@dataclass(frozen=True, kw_only=True)
class SideBySide:
    """The comparisons, and how far the two dense float32 velocities lie apart (relative)."""

    diffusers: str  # version
    batch: int
    difference: float
    rows: tuple[Comparison, ...]


def diffusers_version() -> str:
    """Raises BackendError, in words fit for a table, where the module is not installed."""
    try:
        version = metadata.version("diffusers")
    except metadata.PackageNotFoundError as error:
        raise BackendError("diffusers not installed") from error
    try:
        from diffusers import SanaWMTransformer3DModel  # noqa: F401
    except ImportError as error:
        raise BackendError(f"diffusers {version} has no usable SanaWMTransformer3DModel: {error}") from error
    return version


def twins(model: WorldModel) -> tuple[WorldModel, nn.Module]:
    """The model with the switches of diffusers, and the diffusers module with the model's weights."""
    from diffusers import SanaWMTransformer3DModel

    cfg = model.config.transformer
    padded = cfg.head_dim if cfg.head_dim in (32, 64, 128, 256) else 128 if cfg.head_dim <= 128 else 256
    cfg = dataclasses.replace(cfg, rms_envelope=True, main_scale_width=cfg.head_dim, camera_scale_width=padded)
    ours = SanaWM(cfg).to(model.device)
    weights = model.transformer.state_dict()
    ours.load_state_dict(weights)
    theirs = SanaWMTransformer3DModel(**diffusers_arguments(cfg)).to(model.device).eval().requires_grad_(False)
    missing, unexpected = theirs.load_state_dict(weights, strict=False)
    if unexpected or not set(missing) <= ignored_keys(cfg):
        raise BackendError(f"diffusers: expected a module with our parameters, got {missing=} {unexpected=}")
    config = dataclasses.replace(model.config, transformer=cfg)
    return WorldModel(config, ours, model.tokenizer, model.text), theirs


def diffusers_arguments(cfg: TransformerConfig) -> dict[str, int | float]:
    """Our sizes under diffusers' names."""
    return {
        "in_channels": cfg.latent_channels,
        "num_layers": cfg.depth,
        "hidden_size": cfg.width,
        "num_attention_heads": cfg.heads,
        "linear_head_dim": cfg.head_dim,
        "softmax_every_n": cfg.softmax_every,
        "conv_kernel_size": cfg.key_conv,
        "mlp_ratio": cfg.mlp_ratio,
        "caption_channels": cfg.caption_channels,
        "chunk_plucker_channels": cfg.plucker_channels,
        "chunk_plucker_post_attn_blocks": cfg.depth,
    }


@contextmanager
def without_bfloat16() -> Iterator[None]:
    """`Tensor.bfloat16` does nothing inside. No option of diffusers turns its cast off."""
    original = Tensor.bfloat16
    Tensor.bfloat16 = lambda self: self
    try:
        yield
    finally:
        Tensor.bfloat16 = original


@dataclass(frozen=True)
class Dense:
    """A context as one dense call sees it, for either module."""

    latents: Tensor  # (B, C, T, Y, X)
    camera: Tensor  # (B, T, 20)
    plucker: Tensor  # (B, 6*stride, T, Y, X)
    text: Tensor  # (B, L, E)
    text_mask: Tensor  # (B, L) bool

    def time(self, now: float) -> Tensor:  # (B, T)
        return self.latents.new_full((len(self.latents), self.latents.shape[2]), now)

    def ours(self, transformer: SanaWM) -> Tensor:
        index = torch.arange(self.latents.shape[2], device=self.latents.device).expand(len(self.latents), -1)
        given = transformer.condition(self.text, self.text_mask, self.camera, self.plucker, index)
        return transformer(self.latents, self.time(500.0), given)[0]

    def theirs(self, module: nn.Module, now: float = 500.0) -> Tensor:
        return module(
            hidden_states=self.latents,
            timestep=self.time(now)[:, None],
            encoder_hidden_states=self.text[:, None],
            encoder_attention_mask=self.text_mask,
            camera_conditions=self.camera,
            chunk_plucker=self.plucker,
            return_dict=False,
        )[0]


@torch.no_grad()
def side_by_side(model: WorldModel, batch: int, repeats: int) -> SideBySide:
    """Both modules on one context of `batch` worlds. Raises BackendError where diffusers is not there."""
    version = diffusers_version()
    ours, theirs = twins(model)
    config, state = ours.config, full_worlds(ours, batch)
    context = config.sink + config.recent + config.block
    draw = torch.Generator().manual_seed(0)
    shape = (batch, config.tokenizer.latent_channels, context, *config.tokenizer.grid)
    latents = torch.randn(shape, generator=draw).to(ours.device)
    dense = Dense(latents, *camera_ahead(ours, state, context), state.text, state.text_mask)
    with without_bfloat16():
        got, expected = dense.ours(ours.transformer), dense.theirs(theirs)
    works = our_works(ours, state, dense) | their_works(theirs, dense, config.steps)
    taken = alternating(works, repeats, ours.device, f"beside diffusers, batch {batch}")
    rows = []
    for work, meaning in WORKS.items():
        rival = "chunk" if work == "chunk" else "dense"  # a velocity is a dense call: diffusers knows no other
        names = f"{work} ours", f"{rival} shipped", f"{rival} float32"
        mine, shipped, exact = (taken[name].median for name in names)
        words = meaning.format(forwards=len(config.steps) - 1, block=config.block, context=context)
        times = {"ours_ms": mine, "diffusers_ms": shipped, "diffusers_float32_ms": exact}
        rows.append(Comparison(work=work, meaning=words, **times, ratio=min(shipped, exact) / mine))
    difference = ((got - expected).norm() / expected.norm()).item()
    return SideBySide(diffusers=version, batch=batch, difference=difference, rows=tuple(rows))


def our_works(model: WorldModel, state: WorldState, dense: Dense) -> dict[str, Callable[[], object]]:
    """Our half of WORKS. The newest chunk is the end of the dense context."""
    noise = dense.latents[:, :, -model.config.block :]
    time = dense.time(500.0)[:, -model.config.block :]
    poses = path(len(state), model.config.frames_per_step)
    return {
        "chunk ours": lambda: model.step_latent(state, poses, noise=noise),
        "velocity ours": lambda: model.transformer(noise, time, *next_chunk(model, state)),
        "dense ours": lambda: dense.ours(model.transformer),
    }


def their_works(module: nn.Module, dense: Dense, steps: tuple[int, ...]) -> dict[str, Callable[[], object]]:
    """diffusers' half of WORKS, as shipped and in float32."""

    def chunk() -> Tensor:
        moved = dense
        for now, then in itertools.pairwise(steps):
            change = moved.theirs(module, now) * ((now - then) / 1000)
            moved = dataclasses.replace(moved, latents=moved.latents - change)
        return moved.latents

    works = {"chunk": chunk, "dense": lambda: dense.theirs(module)}
    exact = {f"{name} float32": without_bfloat16()(work) for name, work in works.items()}
    return {f"{name} shipped": work for name, work in works.items()} | exact
