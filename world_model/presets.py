"""The worlds that have a name: the shipped one, the released one, and a toy with the released one's semantics."""

from world_model.config import TextConfig, TokenizerConfig, TransformerConfig, WorldConfig


def nano(vocabulary: tuple[str, ...] = ()) -> WorldConfig:
    """The model that this package trains and ships: 128x128 at 16 fps, one latent (4 frames) a step."""
    transformer = TransformerConfig(
        latent_channels=48,
        caption_channels=64,
        plucker_channels=24,
        depth=4,
        heads=6,
        head_dim=32,
        softmax_every=2,
        mlp_ratio=2.0,
        main_scale_width=32,
        camera_scale_width=32,
    )
    return WorldConfig(
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
