"""Blocks that are computed twice: the same gradients, and less kept between."""

import pytest
import torch
from torch import nn

from tests.world_model.test_whole_clip import random_clips, random_model
from world_model import whole_clip
from world_model.errors import InputError
from world_model.presets import tiny_sana
from world_model.train.recompute import recompute_blocks


def loss_and_kept(model: nn.Module) -> tuple[torch.Tensor, int]:
    """A loss, its gradients in the model, and the bytes that autograd kept from forward to backward by itself."""
    config, kept = tiny_sana(), {}
    clips, time = random_clips(config, 7), torch.full((2, 7), 500.0)

    def keep(x: torch.Tensor) -> torch.Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        loss = whole_clip.velocities(model, config, clips, clips.latents, time, (4, 3)).square().mean()
    loss.backward()
    return loss.detach(), sum(kept.values())


def test_gradients_are_the_same_and_less_is_kept() -> None:
    plain, twice = random_model(tiny_sana()), random_model(tiny_sana())
    assert recompute_blocks(twice) == 4
    (expected, before), (found, after) = loss_and_kept(plain), loss_and_kept(twice)
    assert torch.equal(found, expected)
    for (name, weight), other in zip(plain.named_parameters(), twice.parameters(), strict=True):
        assert torch.equal(weight.grad, other.grad), name
    inputs = 4 * 2 * 7 * (2 * 3 + 6) * 64 * 4  # of each block: tokens and modulations of 2 clips of 7 frames, float32
    assert after + inputs < before / 2


def test_a_module_without_blocks_is_refused() -> None:
    with pytest.raises(InputError, match="transformer blocks, found none"):
        recompute_blocks(nn.Linear(2, 2))
