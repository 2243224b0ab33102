"""Nano's prompt encoder: known words, learned vectors, no download.

Legend: B batch, L slots (one start token and at most `max_words` words), E channels.
"""

import logging
import re

import torch
from torch import Tensor, nn

from world_model.config import TextConfig
from world_model.errors import InputError

log = logging.getLogger(__name__)

START, UNKNOWN = 0, 1  # ids; word i of the vocabulary has id i + len(SPECIAL)
SPECIAL = (START, UNKNOWN)


class WordEncoder(nn.Module):
    """One vector a word plus one a position. The first slot holds a start token, so no prompt is ever empty."""

    def __init__(self, cfg: TextConfig):
        super().__init__()
        if cfg.kind != "words":
            raise InputError(f"text kind: WordEncoder is 'words', got {cfg.kind!r}")
        repeated = sorted({word for word in cfg.vocabulary if cfg.vocabulary.count(word) > 1})
        strange = [word for word in cfg.vocabulary if words(word) != [word]]
        if repeated or strange:
            raise InputError(f"vocabulary: expected distinct lower-case words, got twice {repeated}, other {strange}")
        self.cfg = cfg
        self.ids = {word: index + len(SPECIAL) for index, word in enumerate(cfg.vocabulary)}
        self.words = nn.Embedding(len(SPECIAL) + len(cfg.vocabulary), cfg.channels)
        self.positions = nn.Embedding(1 + cfg.max_words, cfg.channels)

    def tokenize(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """Prompts -> ids (B, L) int64 and mask (B, L) bool, True where a slot is used; L is the longest prompt's.

        Words beyond `max_words` are dropped and unknown words become one id; a warning names both.
        """
        rows = [self._row(prompt) for prompt in prompts]
        slots = max((len(row) for row in rows), default=1)
        ids = torch.full((len(rows), slots), START)
        mask = torch.zeros(len(rows), slots, dtype=torch.bool)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
            mask[index, : len(row)] = True
        return ids, mask

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, L) -> (B, L, E). Unused slots are vectors too: attend with the mask."""
        if ids.shape[1] > self.positions.num_embeddings:
            raise InputError(f"ids: expected at most {self.positions.num_embeddings} slots, got {ids.shape[1]}")
        places = torch.arange(ids.shape[1], device=ids.device)
        return self.words(ids) + self.positions(places)

    def _row(self, prompt: str) -> list[int]:
        found = words(prompt)
        if len(found) > self.cfg.max_words:
            log.warning("prompt of %d words cut to %d: %r", len(found), self.cfg.max_words, prompt)
            found = found[: self.cfg.max_words]
        unknown = [word for word in found if word not in self.ids]
        if unknown:
            log.warning("words without a vector in prompt %r: %s", prompt, ", ".join(unknown))
        return [START, *(self.ids.get(word, UNKNOWN) for word in found)]


def words(text: str) -> list[str]:
    """Lower-case words of `text`, punctuation stripped."""
    return re.findall(r"[^\W_]+", text.lower())


def vocabulary(captions: list[str]) -> tuple[str, ...]:
    """All words of `captions`, in alphabetical order: what a TextConfig takes."""
    return tuple(sorted({word for caption in captions for word in words(caption)}))
