"""Clips as the model itself plays them, which is the context that it meets at play.

Shapes: B clips, T latents, C channels, Y, X cells.
"""

import torch
from torch import Tensor

from world_model.clips import Clips
from world_model.dynamics import advance, new_worlds
from world_model.train.flow_model import FlowModel


@torch.no_grad()
def rollout(model: FlowModel, clips: Clips, noise: Tensor) -> Tensor:
    """The clips as the model plays them from their start latents, (B, C, T, Y, X).

    noise (B, C, T-1, Y, X): of whole steps.
    """
    start, config = clips.latents[:, :, :1], model.config
    worlds = new_worlds(
        model.transformer, config, start, clips.intrinsics, clips.text, clips.text_mask, [0] * len(start), "training"
    )
    made = [start]
    for step, drawn in enumerate(noise.split(config.block, 2)):
        path = clips.poses[:, 1 + step * config.frames_per_step :][:, : config.frames_per_step]
        worlds, latents = advance(model.transformer, config, worlds, path, drawn)
        made.append(latents)
    return torch.cat(made, 2)
