"""Captions of latents that are encoded already, read by Gemma-2 and kept: what text_features.py holds.

As the released weights saw them (stage-1 architecture, 4): instructions come before the caption and colour what is
read of it, and then are dropped, but for the start token and the last of their tokens.
"""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from world_model.errors import InputError
from world_model.train.data.latents import open_latents
from world_model.train.data.source import optional_module

log = logging.getLogger(__name__)

ROWS = 300  # features kept of a caption at most, the start token's included


@dataclass(frozen=True, kw_only=True)
class TextRun:
    """`python -m world_model.train text` (extra "sana")."""

    encoder: str  # folder of Gemma-2, weights and tokenizer, as transformers reads it
    data: tuple[str, ...]  # as `flow` reads it: training clips, held-out clips
    out: str  # the safetensors file to write
    instructions: str = ""  # a text file: what comes right before each caption
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not self.data or not self.out.endswith(".safetensors"):
            raise InputError(f"text: expected data and a .safetensors file as out, got {self.data} and {self.out!r}")


def train(config: TextRun) -> None:
    """Write the features of every caption, bfloat16. Raises BackendError without transformers."""
    transformers = optional_module("transformers", "sana")
    captions = sorted({caption for item in config.data for caption in open_latents(Path(item)).captions})
    # an editor ends the last line, which the caption has to follow
    instructions = Path(config.instructions).read_text().removesuffix("\n") if config.instructions else ""
    tokenizer = transformers.AutoTokenizer.from_pretrained(config.encoder)
    # only the eager attention caps its logits as Gemma-2 was trained to
    model = transformers.AutoModel.from_pretrained(config.encoder, dtype=torch.bfloat16, attn_implementation="eager")
    model.to(config.device).eval()
    features = {}
    for caption in tqdm(captions, desc="text", unit="caption"):
        tokens, kept = chosen(tokenizer.encode(instructions), tokenizer.encode(instructions + caption))
        features[caption] = read(model, tokens, kept)
    out = Path(config.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}")
    save_file(features, part)
    os.replace(part, out)
    log.info("%s: %d captions", out, len(features))


def chosen(instructions: list[int], whole: list[int]) -> tuple[list[int], list[int]]:
    """The tokens to read, of the instructions and the caption after them, and which rows of them to keep.

    Both begin with the start token. Without padding: it comes last and nothing looks ahead, so rows are the same.
    """
    last = max(1, len(instructions) - 1)  # of the instructions' tokens
    tokens = whole[: last + ROWS - 1]
    return tokens, [0, *range(last, len(tokens))]


@torch.no_grad()
def read(model: nn.Module, tokens: list[int], kept: list[int]) -> Tensor:
    """The last layer's normalised output for these tokens, (len(kept), E) bfloat16 on the CPU."""
    device = next(model.parameters()).device
    hidden = model(input_ids=torch.tensor([tokens], device=device), use_cache=False).last_hidden_state[0]
    return hidden[kept].bfloat16().cpu()
