"""Context as it looks after a while of drifting: what a refiner remembers is its own output, never the truth.

Shapes: B clips, C channels, T latents, Y, X cells.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from world_model.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """The largest of each kind of damage; `strength` scales all. Defaults: the public recipe's (training, 6)."""

    strength: float = 1.0
    noise: float = 0.1  # share of Gaussian noise in a clip
    exposure: float = 0.15  # a channel louder or quieter, over a whole clip
    blur: float = 0.2  # share of its neighbours in time
    dropout: float = 0.1  # share of channels that are missing

    def __post_init__(self) -> None:
        shares = vars(self)
        if not all(0 <= share <= 1 for share in shares.values()):
            raise InputError(f"corruption: expected shares in 0..1, got {shares}")


def corrupt(latents: Tensor, how: Corruption, draw: torch.Generator) -> Tensor:
    """Clips (B, C, T, Y, X), each damaged in its own way; the start latent, which is given, stays as it is."""
    count, channels, frames = latents.shape[:3]

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=draw).to(latents)

    blur = how.strength * how.blur * uniform(count, 1, 1, 1, 1)
    before, after = latents[:, :, [0, *range(frames - 1)]], latents[:, :, [*range(1, frames), frames - 1]]
    damaged = (1 - blur) * latents + blur * (before + after) / 2
    damaged = damaged * (1 + how.strength * how.exposure * (2 * uniform(count, channels, 1, 1, 1) - 1))
    damaged = damaged * (uniform(count, channels, 1, 1, 1) >= how.strength * how.dropout)
    level = how.strength * how.noise * uniform(count, 1, 1, 1, 1)
    noise = torch.randn(latents.shape, generator=draw).to(latents)
    damaged = (1 - level) * damaged + level * noise
    return torch.cat([latents[:, :, :1], damaged[:, :, 1:]], 2)
