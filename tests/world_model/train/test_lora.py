"""Low-rank updates: nothing at the start, all that learns afterwards, and the same function once merged."""

import dataclasses

import pytest
import torch

from world_model.errors import InputError
from world_model.presets import nano
from world_model.train.lora import LowRank, add_updates, merged_weights
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
