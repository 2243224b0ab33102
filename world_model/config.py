"""Every number that shapes a world model, as frozen values; world_model.presets fills them in.

Lengths along time are counted in latent frames unless the name says otherwise.
"""

from dataclasses import dataclass

from world_model.errors import require, require_one_of, require_positive


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
    rms_envelope: bool = False  # spec 10.1: on in diffusers and SGLang, off where the weights were trained
    main_scale_width: int = 128  # softmax temperature 1/sqrt(width), spec 11: the head, or the head padded
    camera_scale_width: int = 128
    backend: str = "torch"  # who runs the delta rule

    def __post_init__(self) -> None:
        require_positive(self)
        require(self.head_dim % 8 == 0, f"head_dim: half of it must tile into 4x4 ray matrices, got {self.head_dim}")
        require(self.key_conv > 1, f"key_conv: expected at least two taps, got {self.key_conv}")

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
    latent_channels: int = 48
    temporal_stride: int = 4
    spatial_stride: int = 16
    base_width: int = 48  # channels at the working resolution, 1/4 of the pixels' (nano only)

    def __post_init__(self) -> None:
        require_positive(self)
        require_one_of("tokenizer kind", self.kind, "nano", "ltx2")
        for side, size in (("height", self.height), ("width", self.width)):
            whole = size % self.spatial_stride == 0
            require(whole, f"{side}: expected a multiple of spatial_stride={self.spatial_stride}, got {size}")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of latent cells."""
        return self.height // self.spatial_stride, self.width // self.spatial_stride


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The prompt encoder: a vocabulary of words (nano), or Gemma-2 (released weights)."""

    kind: str = "words"
    vocabulary: tuple[str, ...] = ()
    max_words: int = 48  # captions of nano have up to 40
    channels: int = 64

    def __post_init__(self) -> None:
        require_positive(self)
        require_one_of("text kind", self.kind, "words", "gemma2")


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
        falling = list(self.steps) == sorted(set(self.steps), reverse=True)
        require(
            falling and len(self.steps) >= 2 and self.steps[0] <= 1000 and self.steps[-1] == 0,
            f"steps: expected strictly falling times from at most 1000 to 0, got {self.steps}",
        )
        require(self.block > 0 and self.fps > 0, f"block, fps: expected > 0, got {self.block}, {self.fps}")
        first = 1 + self.block * self.pending_start
        require(self.sink == first, f"sink: expected the {first} latents of the first chunk, got {self.sink}")
        whole = self.recent >= 0 and self.recent % self.block == 0
        require(whole, f"recent: expected a multiple of block={self.block}, got {self.recent}")
        # without a pending start, reset writes latent 0 before any pose to come is known
        require_one_of("first_plucker", self.first_plucker, "hold", *["overlap"] * self.pending_start)
        require_one_of("plucker_reference", self.plucker_reference, "start", "previous")
        model, stride = self.transformer, self.tokenizer.temporal_stride
        for name, left, right in (
            ("plucker_channels", model.plucker_channels, 6 * stride),
            ("latent_channels", model.latent_channels, self.tokenizer.latent_channels),
            ("caption_channels", model.caption_channels, self.text.channels),
        ):
            require(left == right, f"{name}: the transformer has {left}, its tokenizer or text model {right}")

    @property
    def frames_per_step(self) -> int:
        """Video frames of one step."""
        return self.block * self.tokenizer.temporal_stride
