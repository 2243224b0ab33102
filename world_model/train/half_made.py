"""Chunks as the model itself has made them before one of its steps at play.

Play takes two steps, and the second begins from the first one's guess. That is a blurred picture under little noise,
where training on noised truth shows a sharp one: a model that has learned from its own guesses can mend them.

Shapes: B clips, C channels, T latents, Y, X cells.
"""

import torch
from torch import Tensor

from world_model.clips import Clips, select
from world_model.train.flow_model import FlowModel
from world_model.train.streaming import velocities


@torch.no_grad()
def half_made(
    model: FlowModel,
    clips: Clips,
    context: Tensor,
    data: Tensor,
    noise: Tensor,
    time: Tensor,
    share: float,
    draw: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Noise (B, C, T-1, Y, X) and times (B, T-1): those given, and for a share of the clips those of half-made chunks.

    Mixed with the data at the time returned, the noise returned gives a chunk as the model has made it up to one of
    its steps, drawn at random; so noise - data is the velocity that leads from there to the truth.
    """
    count, steps = len(data), model.config.steps
    own = torch.rand(count, generator=draw) < share
    first = torch.randint(len(steps) - 1, (1,), generator=draw)
    step = (torch.randperm(count, generator=draw) + first) % (len(steps) - 1)  # as many at every step as can be
    noise, time, made = noise.clone(), time.clone(), noise.clone()
    for number, now in enumerate(steps[:-1]):
        ready, going = (own & (step == number)).nonzero()[:, 0], (own & (step > number)).nonzero()[:, 0]
        time[ready] = now
        noise[ready] = data[ready] + (made[ready] - data[ready]) * (1000 / now)
        if len(going):
            chosen, times = select(clips, going), torch.full_like(time[going], now)
            velocity = velocities(model.transformer, model.config, chosen, context[going], made[going], times)
            made[going] += (steps[number + 1] - now) / 1000 * velocity.to(made.dtype)
    return noise, time
