"""What a world costs, and what a world model refuses."""

import dataclasses
import gc
import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor

from world_model.attention import DeltaCache
from world_model.config import TextConfig, TokenizerConfig
from world_model.dynamics import advance, new_worlds
from world_model.errors import InputError, StateError
from world_model.model import WorldModel
from world_model.presets import nano, sana_wm, tiny_sana
from world_model.state import WorldState
from world_model.transformer import SanaWM
from world_model.tree import named_tensors

# ---- memory -----------------------------------------------------------------------------------------------


def expected_bytes(model: WorldModel) -> int:
    """The cost of a settled world, counted from the config."""
    config, cfg, (rows, columns) = model.config, model.config.transformer, model.config.tokenizer.grid
    tokens, head = rows * columns, cfg.head_dim
    softmax = sum(cfg.is_softmax(i) for i in range(cfg.depth))
    delta = cfg.depth - softmax
    state = cfg.heads * (2 * head * head + head) + (cfg.key_conv - 1) * tokens * cfg.width
    window = (config.sink + config.recent) * tokens * 4 * cfg.width * softmax
    floats = delta * state + cfg.depth * tokens * cfg.width + window
    floats += 2 * cfg.latent_channels * tokens + 16 + 4 + (1 + config.text.max_words) * config.text.channels
    chunks = 1 + config.recent // config.block
    return 4 * floats + 3 * 8 + (1 + config.text.max_words) + chunks


def test_bytes_per_world_are_those_of_its_parts(play) -> None:
    state = play.run([0, 1], play.settled)
    assert state.bytes_per_world() == expected_bytes(play.model)
    assert state[0].bytes_per_world() == state.bytes_per_world()
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in named_tensors(state).values()}
    assert sum(storages.values()) <= 2 * expected_bytes(play.model)  # no tensor keeps a larger one alive


def test_memory_is_constant_over_five_hundred_steps() -> None:
    wide = nano()
    small = dataclasses.replace(wide.transformer, latent_channels=4, depth=2, heads=1, head_dim=8, caption_channels=8)
    config = dataclasses.replace(
        wide,
        transformer=small,
        tokenizer=TokenizerConfig(height=32, width=32, latent_channels=4, base_width=8),
        text=TextConfig(channels=8, max_words=2),
        steps=(1000, 0),
    )
    model = WorldModel.random(config)
    state, _ = model.reset(np.zeros((1, 32, 32, 3), np.uint8))
    poses, held = torch.eye(4).expand(1, 4, 4, 4), []

    def tensors_alive() -> int:
        gc.collect()
        return sum(o.untyped_storage().nbytes() for o in gc.get_objects() if type(o) is Tensor)

    for step in range(500):
        state, _ = model.step(state, poses)
        if step in (20, 100, 499):
            held.append((state.bytes_per_world(), len(state.window), tensors_alive()))
    assert state.index.tolist() == [501]
    assert len(set(held)) == 1, held


def test_a_world_of_the_released_model_costs_as_much_as_specified(monkeypatch: pytest.MonkeyPatch) -> None:
    # Shapes alone, on the meta device; four of the twenty blocks, three of them delta rule and one softmax.
    monkeypatch.setattr(torch, "autocast", lambda *args, **options: nullcontext())  # knows no meta device
    config = sana_wm()
    config = dataclasses.replace(config, steps=(1000, 0), transformer=dataclasses.replace(config.transformer, depth=4))
    with torch.device("meta"):
        transformer = SanaWM(config.transformer).bfloat16().eval().requires_grad_(False)
    meta = {"device": "meta", "dtype": torch.bfloat16}
    start, text = torch.empty(1, 128, 1, 22, 40, **meta), torch.empty(1, 300, 2304, **meta)
    mask, lens = torch.ones(1, 300, dtype=torch.bool, device="meta"), torch.ones(1, 4, device="meta")
    state = new_worlds(transformer, config, start, lens, text, mask, [0], "meta")
    shared = state.bytes_per_world() - blocks_bytes(state)
    for _ in range(3):
        path, noise = torch.empty(1, 24, 4, 4, device="meta"), torch.empty(1, 128, 3, 22, 40, **meta)
        state, _ = advance(transformer, config, state, path, noise)
    assert all(isinstance(cache, DeltaCache) and cache.numerator.dtype == torch.float32 for cache in state.delta)
    tail, softmax = 3_942_400, 7 * 15_769_600  # a tail; seven frames of keys and values
    assert blocks_bytes(state) == 3 * 17_785_600 + softmax + tail
    assert (5 * blocks_bytes(state) + shared) / 2**30 == pytest.approx(0.78, abs=0.01)


def blocks_bytes(state: WorldState) -> int:
    """What grows with the number of blocks."""
    window = tuple(entry.blocks for entry in state.window)
    return sum(t.nbytes for part in (state.delta, state.tails, window) for t in named_tensors(part).values())


# ---- states of other models, bad input ----------------------------------------------------------------------


def test_a_state_of_another_model_is_refused(play) -> None:
    state = play.start([0])
    other = WorldModel.random(play.model.config, seed=5)
    poses = play.poses([0], 0)
    for call in (lambda: other.step(state, poses), lambda: other.step_latent(state, poses)):
        with pytest.raises(
            StateError, match=f"expected a state of model {other.fingerprint}, got one of {state.model}"
        ):
            call()
    _, latents = play.model.step_latent(state, poses)
    with pytest.raises(StateError, match="expected a state of model"):
        other.decode(state, latents)
    stranger, _ = other.reset(play.pictures[:1])
    with pytest.raises(StateError, match=f"expected worlds of model {state.model}, got {other.fingerprint}"):
        WorldState.cat([state, stranger])


def test_a_fingerprint_knows_config_and_weights(play) -> None:
    model = play.model
    again = WorldModel(model.config, model.transformer, model.tokenizer, model.text)
    assert again.fingerprint == model.fingerprint
    config = dataclasses.replace(model.config, steps=(1000, 500, 0))
    assert WorldModel(config, model.transformer, model.tokenizer, model.text).fingerprint != model.fingerprint
    assert WorldModel.random(model.config, 1).fingerprint != WorldModel.random(model.config, 2).fingerprint


def test_poses_that_do_not_fit_are_refused(tiny) -> None:
    state, good = tiny.start([0, 1]), tiny.poses([0, 1], 0)
    nan, stretched = good.clone(), good.clone()
    nan[1, 3, 0, 3] = math.nan
    stretched[0, 5, :3, :3] *= 1.1
    for poses, message in (
        (good[:1], r"expected \(2, 24, 4, 4\) floating point, got \(1, 24, 4, 4\)"),
        (good[:, :4], r"expected \(2, 24, 4, 4\) floating point, got \(2, 4, 4, 4\)"),
        (good[:, :, :3], r"got \(2, 24, 3, 4\)"),
        (good.long(), r"got \(2, 24, 4, 4\) torch.int64"),
        (nan, "expected finite numbers, got NaN"),
        (stretched, "expected rigid transforms"),
        (torch.zeros(2, 24, 4, 4), "expected rigid transforms"),
    ):
        with pytest.raises(InputError, match=f"poses: .*{message}"):
            tiny.model.step(state, poses)


@pytest.mark.filterwarnings("error")
def test_poses_may_be_lists_doubles_and_read_only(tiny) -> None:
    state = tiny.start([0])
    still = np.broadcast_to(np.eye(4), (1, 24, 4, 4))
    expected = tiny.model.step(state, torch.eye(4).expand(1, 24, 4, 4))[1]
    for poses in (still, still.tolist(), still.astype(np.float32), torch.eye(4).double().expand(1, 24, 4, 4)):
        assert torch.equal(tiny.model.step(state, poses)[1], expected)


def test_noise_that_does_not_fit_is_refused(tiny) -> None:
    state, poses = tiny.start([0]), tiny.poses([0], 0)
    for noise in (torch.zeros(1, 8, 4, 2, 3), torch.zeros(2, 8, 3, 2, 3), torch.zeros(1, 8, 3, 2, 3).int()):
        with pytest.raises(InputError, match=r"noise: expected \(1, 8, 3, 2, 3\) floating point, got"):
            tiny.model.step(state, poses, noise=noise)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"images": []}, "images: expected at least one, got none"),
        ({"images": [np.zeros((64, 96), np.uint8)]}, r"image: expected \(H, W, 3\) uint8, got \(64, 96\)"),
        ({"images": np.zeros((64, 96, 3), np.uint8)}, r"image: expected \(H, W, 3\) uint8, got \(96, 3\)"),
        ({"prompts": ["a", "b"]}, r"prompts: expected 1 strings, one an image, got \['a', 'b'\]"),
        ({"prompts": "a"}, "prompts: expected 1 strings, one an image, got 'a'"),
        ({"prompts": [3]}, r"prompts: expected 1 strings, one an image, got \[3\]"),
        ({"seeds": [1, 2]}, "seeds: expected 1, one a world, got 2"),
        ({"seeds": [1.5]}, r"seeds: expected 64-bit integers, got \[1.5\]"),
        ({"seeds": [2**63]}, r"seeds: expected 64-bit integers, got \[9223372036854775808\]"),
        ({"intrinsics": [0.0, 1, 1, 1]}, "positive focal lengths, got"),
        ({"intrinsics": [1.0, 1, 1]}, r"intrinsics: expected \(4,\) or \(1, 4\), got shape \(3,\)"),
    ],
)
def test_a_reset_that_cannot_be_is_refused(tiny, given: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny.model.reset(**{"images": tiny.pictures[:1]} | given)


def test_presets_have_names_and_sizes() -> None:
    assert [config.name for config in (nano(), tiny_sana(), sana_wm())] == ["nano", "tiny-sana", "sana-wm"]
    assert (nano().frames_per_step, nano().tokenizer.grid) == (4, (8, 8))
    assert (sana_wm().frames_per_step, sana_wm().tokenizer.grid) == (24, (22, 40))
    assert (tiny_sana().block, tiny_sana().sink, tiny_sana().recent) == (3, 4, 3)
