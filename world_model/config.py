"""Every number that shapes a world model, as frozen values, and the three presets.

Lengths along time are counted in latent frames unless the name says otherwise.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from world_model.errors import InputError


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """The denoiser (spec: stage-1 architecture, section 1). Defaults are those of the released weights."""

    latent_channels: int = 128
    caption_channels: int = 2304
    plucker_channels: int = 48  # 6 Plücker coordinates of each raw frame in a latent frame
    depth: int = 20
    heads: int = 20
    head_dim: int = 112
    softmax_every: int = 4  # blocks 3, 7, 11, ... mix by softmax, the others by the gated delta rule
    mlp_ratio: float = 3.0
    key_conv: int = 4
    rms_envelope: bool = False  # spec 10.1: on in diffusers and SGLang, off in the kernels that trained the weights
    main_scale_width: int = 128  # softmax temperature 1/sqrt(width), spec 11: the head, or the head padded
    camera_scale_width: int = 128
    backend: str = "torch"  # who runs the delta rule

    def __post_init__(self) -> None:
        for name in (
            "latent_channels",
            "caption_channels",
            "plucker_channels",
            "depth",
            "heads",
            "softmax_every",
        ):
            _check(getattr(self, name) > 0, f"{name}: expected a positive number, got {getattr(self, name)}")
        _check(
            self.head_dim % 8 == 0,
            f"head_dim: half of it must tile into 4x4 ray matrices, got {self.head_dim}",
        )
        _check(self.key_conv > 1, f"key_conv: expected at least two taps, got {self.key_conv}")
        _check(self.main_scale_width > 0, f"main_scale_width: expected > 0, got {self.main_scale_width}")
        _check(self.camera_scale_width > 0, f"camera_scale_width: expected > 0, got {self.camera_scale_width}")

    @property
    def width(self) -> int:
        return self.heads * self.head_dim

    def is_softmax(self, block: int) -> bool:
        return (block + 1) % self.softmax_every == 0


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """The video autoencoder: latent 0 is frame 0 alone, every later latent is `temporal_stride` frames."""

    kind: str = "nano"  # "nano": world_model.vae.VideoTokenizer; "ltx2": the VAE of the released weights
    height: int = 128  # pixels
    width: int = 128
    latent_channels: int = 24
    temporal_stride: int = 4
    spatial_stride: int = 16
    base_width: int = 48  # channels at the working resolution, 1/4 of the pixels' (nano only)

    def __post_init__(self) -> None:
        _check(self.kind in ("nano", "ltx2"), f"tokenizer kind: expected 'nano' or 'ltx2', got {self.kind!r}")
        for side in ("height", "width"):
            size = getattr(self, side)
            _check(
                size > 0 and size % self.spatial_stride == 0,
                f"{side}: expected a positive multiple of spatial_stride={self.spatial_stride}, got {size}",
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of latent cells."""
        return self.height // self.spatial_stride, self.width // self.spatial_stride


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The prompt encoder: a vocabulary of words (nano), or Gemma-2 (released weights)."""

    kind: str = "words"
    vocabulary: tuple[str, ...] = ()
    max_words: int = 24
    channels: int = 64

    def __post_init__(self) -> None:
        _check(self.kind in ("words", "gemma2"), f"text kind: expected 'words' or 'gemma2', got {self.kind!r}")
        _check(self.max_words > 0, f"max_words: expected > 0, got {self.max_words}")


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """A whole world model: its parts, how a chunk is sampled, what a world remembers (spec: streaming)."""

    name: str
    transformer: TransformerConfig
    tokenizer: TokenizerConfig
    text: TextConfig
    steps: tuple[int, ...] = (1000, 960, 889, 727, 0)  # model times of one chunk, used verbatim
    block: int = 3  # new latent frames a chunk
    sink: int = 4  # latent frames of the first chunk, which softmax blocks always see
    recent: int = 3  # latent frames before the current chunk that softmax blocks see besides the sink
    pending_start: bool = True  # the start frame is denoised with the first chunk, instead of cached by reset
    first_plucker: str = "overlap"  # latent 0 looks at raw frames 0..stride-1; "hold": at frame 0, repeated
    plucker_reference: str = "start"  # rays relative to the start frame; "previous": to the last frame before
    fps: float = 16.0

    def __post_init__(self) -> None:
        _check(
            len(self.steps) >= 2 and self.steps[-1] == 0 and list(self.steps) == sorted(set(self.steps))[::-1],
            f"steps: expected strictly falling times that end in 0, got {self.steps}",
        )
        _check(self.steps[0] <= 1000, f"steps: expected times up to 1000, got {self.steps[0]}")
        _check(self.block > 0, f"block: expected > 0, got {self.block}")
        first = 1 + self.block * self.pending_start
        _check(self.sink == first, f"sink: expected the {first} latents of the first chunk, got {self.sink}")
        _check(
            self.recent >= 0 and self.recent % self.block == 0,
            f"recent: expected a multiple of block={self.block}, got {self.recent}",
        )
        _check(
            self.first_plucker in ("overlap", "hold"),
            f"first_plucker: expected 'overlap' or 'hold', got {self.first_plucker!r}",
        )
        _check(
            self.pending_start or self.first_plucker == "hold",
            "first_plucker: 'overlap' needs poses that reset does not know; expected 'hold' without pending_start",
        )
        _check(
            self.plucker_reference in ("start", "previous"),
            f"plucker_reference: expected 'start' or 'previous', got {self.plucker_reference!r}",
        )
        model, stride = self.transformer, self.tokenizer.temporal_stride
        for name, left, right in (
            ("plucker_channels", model.plucker_channels, 6 * stride),
            ("latent_channels", model.latent_channels, self.tokenizer.latent_channels),
            ("caption_channels", model.caption_channels, self.text.channels),
        ):
            _check(left == right, f"{name}: the transformer has {left}, its tokenizer or text encoder {right}")

    @property
    def frames_per_step(self) -> int:
        """Video frames of one step."""
        return self.block * self.tokenizer.temporal_stride


def nano(vocabulary: tuple[str, ...] = (), **changes: Any) -> WorldConfig:
    """The model that this package trains and ships: 128x128 at 16 fps, one latent (4 frames) a step."""
    transformer = TransformerConfig(
        latent_channels=24,
        caption_channels=64,
        plucker_channels=24,
        depth=6,
        heads=6,
        head_dim=32,
        softmax_every=2,
        mlp_ratio=2.0,
        main_scale_width=32,
        camera_scale_width=32,
    )
    config = WorldConfig(
        name="nano",
        transformer=transformer,
        tokenizer=TokenizerConfig(),
        text=TextConfig(vocabulary=vocabulary, channels=64),
        steps=(1000, 750, 0),
        block=1,
        sink=1,
        recent=8,
        pending_start=False,
        first_plucker="hold",
        plucker_reference="previous",
    )
    return dataclasses.replace(config, **changes)


def sana_wm() -> WorldConfig:
    """The released 2.66 B streaming model: 704x1280 at 16 fps, three latents (24 frames) a step."""
    return WorldConfig(
        name="sana-wm",
        transformer=TransformerConfig(),
        tokenizer=TokenizerConfig(
            kind="ltx2", height=704, width=1280, latent_channels=128, temporal_stride=8, spatial_stride=32
        ),
        text=TextConfig(kind="gemma2", max_words=300, channels=2304),
    )


def tiny_sana() -> WorldConfig:
    """The released model's semantics (block 3, stride 8, pending start, overlap) at toy size, for tests."""
    transformer = TransformerConfig(
        latent_channels=8,
        caption_channels=16,
        depth=4,
        heads=2,
        head_dim=32,
        main_scale_width=32,
        camera_scale_width=32,
    )
    return WorldConfig(
        name="tiny-sana",
        transformer=transformer,
        tokenizer=TokenizerConfig(
            height=64, width=96, latent_channels=8, temporal_stride=8, spatial_stride=32, base_width=16
        ),
        text=TextConfig(vocabulary=("room", "red"), max_words=8, channels=16),
    )
