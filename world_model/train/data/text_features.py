"""Captions as a text encoder has read them, made beforehand: for worlds whose encoder is too large to train beside.

One safetensors file, or a folder of them, holds one tensor a caption: its name is the caption, its rows (L, E) are the
features of the L words that count, padding left out. Row 0 is the start token's, which alone is left where a caption
is dropped. Cross-attention knows no order of words, so leaving out what the mask would hide changes nothing.

Legend: B captions, L words of the longest, E text channels.
"""

import copy
from collections.abc import Collection
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from world_model.config import TextConfig
from world_model.errors import CheckpointError, InputError
from world_model.weights import listed


class TextFeatures(nn.Module):
    """Stands where a WordEncoder stands, and has no weights: what it calls ids are the features themselves."""

    def __init__(self, cfg: TextConfig, path: Path) -> None:
        """Reads what captions there are, and no features. Raises CheckpointError for a broken file or none."""
        super().__init__()
        self.cfg, self.path = cfg, path
        files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
        if not files:
            raise CheckpointError(f"{path}: expected a safetensors file or a folder of them, found none")
        try:
            self.files = [safe_open(file, "pt") for file in files]
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: expected whole safetensors files: {error}") from error
        self.where = {caption: file for file in self.files for caption in file.keys()}  # noqa: SIM118

    def __deepcopy__(self, memo: dict[int, object]) -> "TextFeatures":
        return copy.copy(self)  # files are read, never changed: a copy reads the same ones

    def require(self, captions: Collection[str]) -> None:
        """Raises InputError unless there are features of every caption."""
        missing = sorted(set(captions) - self.where.keys())
        if missing:
            raise InputError(
                f"{self.path}: expected the features of every caption, got {len(self.where)} captions without "
                f"{listed([repr(caption) for caption in missing], 3)}"
            )

    def tokenize(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """Captions -> features (B, L, E), zero where unused, and mask (B, L) bool. Raises InputError."""
        self.require(prompts)
        rows = [self._features(prompt) for prompt in prompts]
        features = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows])
        return features, torch.arange(features.shape[1]) < lengths[:, None]

    def forward(self, features: Tensor) -> Tensor:
        return features

    def _features(self, caption: str) -> Tensor:
        features = self.where[caption].get_tensor(caption)
        most, channels = self.cfg.max_words, self.cfg.channels
        if features.ndim != 2 or not 1 <= len(features) <= most or features.shape[1] != channels:
            raise InputError(
                f"{self.path}: {caption!r}: expected features (1 to {most}, {channels}), got {tuple(features.shape)}"
            )
        return features
