"""What a flow run trains, what it draws, and how it is told to: the configuration, the modules, the batches.

Shapes: B clips, T latents, C channels, Y, X cells, F frames, L words.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from world_model.clips import Clips
from world_model.config import WorldConfig
from world_model.errors import InputError
from world_model.text import WordEncoder
from world_model.train.data.latents import WindowSource
from world_model.train.data.text_features import TextFeatures
from world_model.train.initialise import initialise
from world_model.train.loop import Batch, RunConfig
from world_model.train.times import TimeMixture
from world_model.transformer import SanaWM

MODES = ("streaming", "chunk_causal", "bidirectional")


@dataclass(frozen=True, kw_only=True)
class FlowRun:
    """`python -m world_model.train flow`."""

    run: RunConfig
    world: str  # config.json of the world model to train, or "sana-wm": the released one
    data: str  # folder of encoded training episodes, or a description of latents in another format
    validation: str  # the same of held-out episodes
    tokenizer: str = ""  # folder of the tokenizer that made the latents; a world that reads Gemma-2 has none
    text: str = ""  # features of every caption (data/text_features.py), for a world that reads Gemma-2
    latents: int = 9  # a clip, the start latent included
    span: int = 0  # streaming: clips are drawn from so many latents, with gaps unless they are rolled out; 0: no gaps
    mode: str = "streaming"  # or "chunk_causal", "bidirectional": one pass over whole clips
    shift: float = 3.0  # of training times towards noise
    mixture: TimeMixture = field(default_factory=TimeMixture)  # chunk_causal: how the times of chunks hang together
    start_clean: float = 0.9  # one-pass modes: share of clips whose start latent is given and has no loss
    pure_noise: float = 0.25  # share of chunks at time 1000, where every step of play begins
    own_steps: float = 0.0  # streaming: share of clips at a step of play, each as the model itself made it so far
    caption_dropout: float = 0.1
    aim: bool = False  # begin with camera heads that look along their rays (train/aim.py), in weights of `run.init` too
    lora_rank: int = 0  # fine-tune by updates of this rank, 0: all weights
    frozen_dtype: str = "float32"  # of the weights below such updates; "bfloat16" for runs of that dtype
    context_noise: float = 0.25  # largest corruption of the context, in half of the clips
    rollout: float = 0.5  # share of clips whose context is the model's own rollout
    rollout_from: int = 1000  # step from which that share grows,
    rollout_full: int = 3000  # until it is reached
    gap: int = 256  # largest jump of the latent index after the start latent, in a quarter of the clips
    validation_clips: int = 16
    validation_latents: int = 17  # the start and four seconds

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InputError(f"mode: expected one of {MODES}, got {self.mode!r}")
        if self.span and (self.span < self.latents or self.mode != "streaming"):
            raise InputError(
                f"span: expected 0, or at least latents={self.latents} in mode 'streaming', "
                f"got {self.span} in {self.mode!r}"
            )
        if self.latents < 3 or not 0 <= self.rollout <= 1 or self.rollout_full <= self.rollout_from:
            raise InputError(
                "flow: expected latents >= 3, rollout in 0..1 and rollout_full > rollout_from, "
                f"got {self.latents}, {self.rollout}, {self.rollout_full} and {self.rollout_from}"
            )
        half = self.lora_rank > 0 and self.run.dtype == "bfloat16" and not self.run.shard  # shards have one type
        if self.frozen_dtype not in ("float32", *["bfloat16"] * half):
            raise InputError(
                "frozen_dtype: expected 'float32', or 'bfloat16' with lora_rank > 0, run.dtype 'bfloat16' and no "
                f"run.shard, got {self.frozen_dtype!r} with {self.lora_rank}, {self.run.dtype!r} and {self.run.shard}"
            )


class FlowModel(nn.Module):
    """What is trained together: the transformer and the words it reads. channel_weight (C,): of the loss."""

    channel_weight: Tensor

    def __init__(
        self, config: WorldConfig, channel_weight: Tensor, text: WordEncoder | TextFeatures | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("channel_weight", channel_weight.detach().view(1, -1, 1, 1, 1), persistent=False)
        self.transformer = SanaWM(config.transformer)
        self.text = WordEncoder(config.text) if text is None else text
        initialise(self.transformer)

    def clips(self, tensors: Mapping[str, Tensor]) -> Clips:
        """Raises InputError for latents and poses of another size than the world's."""
        latents, kept = tensors["latents"], tensors.get("kept")
        tokenizer, frames = self.config.tokenizer, latents.shape[2]
        path = 1 + (frames - 1) * tokenizer.temporal_stride if kept is None else tensors["poses"].shape[1]
        expected = (tokenizer.latent_channels, *tokenizer.grid), path
        got = (latents.shape[1], *latents.shape[3:]), tensors["poses"].shape[1]
        if got != expected:
            raise InputError(f"clips: expected (C, Y, X) and poses for {frames} latents of {expected}, got {got}")
        index = torch.arange(frames, device=latents.device).expand(len(latents), -1) if kept is None else kept
        text = self.text(tensors["ids"])
        return Clips(latents, tensors["poses"], tensors["intrinsics"], text, tensors["mask"], index, kept)


def rollout_share(config: FlowRun, step: int) -> float:
    """The share of clips at `step` whose context the model makes itself."""
    grown = (step - config.rollout_from) / (config.rollout_full - config.rollout_from)
    return config.rollout * min(max(grown, 0.0), 1.0)


def batch_of(
    data: WindowSource,
    text: WordEncoder | TextFeatures,
    batch: int,
    latents: int,
    draw: torch.Generator,
    rollout: float,
    span: int = 0,
) -> Batch:
    """Random clips as tensors: latents, poses, intrinsics, what `text` reads (ids) and its mask, and which clips are to
    be rolled out. With a span, latents of a longer path, and which (kept): neighbours where they are to be rolled out,
    elsewhere with gaps, over which a camera can only be followed by its geometry."""
    clips = data.sample(batch, max(latents, span), draw)
    ids, mask = text.tokenize(list(clips.captions))
    tensors = {
        "latents": clips.latents,
        "poses": clips.c2w,
        "intrinsics": clips.intrinsics,
        "ids": ids,
        "mask": mask,
        "rollout": torch.rand(batch, generator=draw) < rollout,
    }
    if span > latents:
        order = torch.rand(batch, span - 1, generator=draw).argsort(1)
        order = torch.where(tensors["rollout"][:, None], torch.arange(span - 1), order)
        kept = torch.nn.functional.pad(order[:, : latents - 1].sort(1).values + 1, (1, 0))  # (B, latents)
        tensors["kept"] = kept
        tensors["latents"] = clips.latents[torch.arange(batch)[:, None], :, kept].transpose(1, 2).contiguous()
    return Batch(tensors=tensors, ids=clips.ids)


def full_length_words(tensors: Mapping[str, Tensor], max_words: int) -> dict[str, Tensor]:
    """Word ids and mask of a batch at the length of the longest caption, so that batches can be joined later."""
    unused = 1 + max_words - tensors["ids"].shape[1]
    return {name: nn.functional.pad(tensors[name], (0, unused)).contiguous() for name in ("ids", "mask")}
