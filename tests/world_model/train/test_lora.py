"""Low-rank updates: nothing at the start, all that learns afterwards, and the same function once merged."""

import dataclasses

import pytest
import torch

from tests.world_model.test_whole_clip import random_clips, random_model
from world_model import whole_clip
from world_model.errors import InputError
from world_model.presets import nano, tiny_sana
from world_model.train.lora import LowRank, add_updates, hold_in, merged_weights
from world_model.transformer import SanaWM


@pytest.fixture
def model() -> SanaWM:
    torch.manual_seed(0)
    config = dataclasses.replace(nano().transformer, depth=2, heads=2, head_dim=16)
    return SanaWM(config)


def test_updates_start_at_nothing_and_are_all_that_learns(model: SanaWM) -> None:
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    count = add_updates(model, 4)
    learning = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert len(learning) == 2 * count
    assert all("parametrizations.weight.0" in name for name in learning)
    assert not any("cross_attn" in name or "embedder" in name for name in learning)
    plain = merged_weights(model)
    assert plain.keys() == before.keys()
    assert all(torch.equal(plain[name], weight) for name, weight in before.items())


def test_a_merged_model_computes_the_same(model: SanaWM) -> None:
    add_updates(model, 2)
    for layer in model.modules():
        if isinstance(layer, LowRank):
            torch.nn.init.normal_(layer.up, std=0.1)
    plain = SanaWM(model.cfg)
    plain.load_state_dict(merged_weights(model))
    x = torch.randn(1, 3, 12, 32)
    for mine, theirs in zip(model.blocks, plain.blocks, strict=True):
        assert torch.allclose(mine.attn.qkv(x), theirs.attn.qkv(x), atol=1e-5)
        assert mine.attn.qkv.weight.sub(mine.attn.qkv.parametrizations.weight.original).abs().max() > 0


def test_what_cannot_be_updated_is_refused(model: SanaWM) -> None:
    with pytest.raises(InputError, match="rank: expected >= 1, got 0"):
        add_updates(model, 0)
    with pytest.raises(InputError, match="names of sub-modules"):
        add_updates(model, 2, ("nothing",))


def test_weights_in_bfloat16_compute_the_same_under_autocast() -> None:
    config = tiny_sana()
    plain, held = random_model(config), random_model(config)
    hold_in(held, torch.bfloat16)
    clips, time = random_clips(config, 7), torch.full((2, 7), 500.0)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        expected, got = (
            whole_clip.velocities(model, config, clips, clips.latents, time, (4, 3)) for model in (plain, held)
        )
    assert torch.equal(got, expected)
    bytes_of = lambda model: sum(weight.nbytes for weight in model.parameters())  # noqa: E731
    assert bytes_of(held) < 0.52 * bytes_of(plain)  # all but norms, modulations and rates


def test_updates_of_weights_in_bfloat16_are_not_rounded_to_it(model: SanaWM) -> None:
    hold_in(model, torch.bfloat16)
    add_updates(model, 2)
    layer = model.blocks[0].attn.qkv
    update = layer.parametrizations.weight[0]
    torch.nn.init.normal_(update.up, std=1e-4)
    assert (update.up.dtype, update.down.dtype) == (torch.float32, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer.weight - layer.parametrizations.weight.original
    assert torch.allclose(found, update.up @ update.down, atol=1e-8)
    assert layer.weight.dtype == torch.float32
