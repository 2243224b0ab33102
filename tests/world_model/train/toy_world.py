"""A world model with next to no weights, and two short episodes for it to learn from."""

import dataclasses
from pathlib import Path

import numpy as np
import torch

from world_model.checkpoint import save_folder
from world_model.config import TextConfig, TokenizerConfig, WorldConfig
from world_model.presets import nano, tiny_sana
from world_model.train.data.episode import Episode, write_episode
from world_model.train.data.latents import LatentsRun
from world_model.train.data.latents import train as encode
from world_model.train.flow_model import FlowModel
from world_model.train.tokenizer import save_tokenizer
from world_model.vae import VideoTokenizer

SIDE = 32  # pixels
FRAMES = 29  # of an episode: eight latents


def toy(block: int = 1) -> WorldConfig:
    """Nano's semantics, or the released model's."""
    whole = nano() if block == 1 else tiny_sana()
    heads = {"depth": 2, "heads": 1, "head_dim": 16, "softmax_every": 2}
    transformer = dataclasses.replace(whole.transformer, latent_channels=4, caption_channels=8, **heads)
    stride = whole.tokenizer.temporal_stride
    tokenizer = TokenizerConfig(height=SIDE, width=SIDE, latent_channels=4, temporal_stride=stride, base_width=8)
    text = TextConfig(vocabulary=("room", "red"), max_words=4, channels=8)
    return dataclasses.replace(
        whole, name="toy", transformer=transformer, tokenizer=tokenizer, text=text, steps=(1000, 800, 500, 0)
    )


def random_flow_model(config: WorldConfig, seed: int) -> FlowModel:
    """No path through it is silent."""
    torch.manual_seed(seed)
    model = FlowModel(config, torch.ones(config.transformer.latent_channels))
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def write_toy_world(root: Path) -> Path:
    """Of `toy()`: `model` to train from, `tokenizer`, two `episodes` that move forward, their `latents`."""
    config = toy()
    torch.manual_seed(0)
    tokenizer = VideoTokenizer(config.tokenizer)
    save_tokenizer(tokenizer, root / "tokenizer")
    model = random_flow_model(config, 0)
    save_folder(root / "model", config, (model.transformer, tokenizer, model.text), torch.float32)
    noise = np.random.default_rng(0)
    for i in range(2):
        path = np.repeat(np.eye(4, dtype=np.float32)[None], FRAMES, 0)
        path[:, 2, 3] = 0.05 * np.arange(FRAMES)
        episode = Episode(
            frames=np.repeat(noise.integers(0, 255, (1, SIDE, SIDE, 3), dtype=np.uint8), FRAMES, 0),
            c2w=path,
            intrinsics=np.tile(np.array([24, 24, 16, 16], np.float32), (FRAMES, 1)),
            caption="a red room",
            fps=16.0,
        )
        write_episode(root / "episodes" / f"{i:06d}", episode)
    encode(LatentsRun(tokenizer=str(root / "tokenizer"), data=(str(root / "episodes"),), out=str(root / "latents")))
    return root
