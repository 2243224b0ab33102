"""Worlds as values: what may change, what must not, and what a world costs. On nano and on tiny_sana alike."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from world_model.errors import InputError, StateError
from world_model.model import LatentChunk
from world_model.sampler import chunk_grid, latent_noise
from world_model.state import WorldState
from world_model.tree import named_tensors

ALL = range(5)


def relative(got: Tensor, expected: Tensor) -> float:
    return ((got.float() - expected.float()).norm() / expected.float().norm()).item()


def furthest(got: Tensor, expected: Tensor) -> int:
    """The largest difference of any byte."""
    return int((got.int() - expected.int()).abs().max())


# ---- the course of a world --------------------------------------------------------------------------------


def test_a_world_advances_by_whole_chunks(play) -> None:
    config, model = play.model.config, play.model
    state, frames = model.reset(play.pictures[:2], seeds=[1, 2])
    assert frames.dtype == torch.uint8
    assert torch.equal(frames, torch.from_numpy(play.pictures[:2, None]))
    index = 0 if config.pending_start else 1
    assert state.index.tolist() == [index] * 2
    made = [index] if index else []
    for step in range(3):
        before = state.index
        state, frames = model.step(state, play.poses([0, 1], step))
        made.append(int(state.index[0] - before[0]))
        assert frames.shape == (2, config.frames_per_step, *model.size, 3)
        assert frames.dtype == torch.uint8
        assert state.index.tolist() == [1 + (step + 1) * config.block] * 2
        assert torch.equal(state.pose, play.poses([0, 1], step)[:, -1])
    if config.pending_start:
        assert tuple(made) == chunk_grid(1 + 3 * config.block, config.block)


def test_what_a_world_was_given_matters(play) -> None:
    model, poses = play.model, play.poses([0], 0)

    def frames(**changes: object) -> Tensor:
        given = {"prompts": ["a red room"], "intrinsics": [60.0, 60.0, 40.0, 40.0], "seeds": [1]} | changes
        state, _ = model.reset(play.pictures[:1], **given)
        return model.step(state, poses)[1]

    expected = frames()
    assert torch.equal(frames(), expected)
    for change in ({"prompts": ["room"]}, {"intrinsics": [50.0, 60.0, 40.0, 40.0]}, {"seeds": [2]}):
        assert not torch.equal(frames(**change), expected), change
    still = torch.eye(4).expand(1, model.config.frames_per_step, 4, 4)
    state, _ = model.reset(play.pictures[:1], ["a red room"], [60.0, 60.0, 40.0, 40.0], [1])
    assert not torch.equal(model.step(state, still)[1], expected)


def test_defaults_are_no_prompt_seventy_degrees_and_the_number_of_the_world(play, assert_same: Callable) -> None:
    focal = play.model.size[1] / 2 / math.tan(math.radians(35))
    lens = [focal, focal, play.model.size[1] / 2, play.model.size[0] / 2]
    state, _ = play.model.reset(play.pictures[:2])
    explicit, _ = play.model.reset(play.pictures[:2], ["", ""], lens, [0, 1])
    torch.testing.assert_close(explicit.intrinsics, state.intrinsics)
    assert_same(dataclasses.replace(explicit, intrinsics=state.intrinsics, **in_window(state)), state)


def in_window(state: WorldState) -> dict[str, object]:
    """What reset computed from the lens, which may differ in the last bit."""
    return {name: getattr(state, name) for name in ("delta", "tails", "window")}


def test_explicit_noise_replaces_the_worlds_own(play, assert_same: Callable) -> None:
    # an offline pipeline draws the whole horizon once and gives every chunk its slice
    config, state = play.model.config, play.start([0])
    shape = (config.tokenizer.latent_channels, *config.tokenizer.grid)
    horizon = latent_noise(torch.tensor([10]), torch.arange(1 + 3 * config.block)[None], shape)
    drawn = state
    for step in range(3):
        poses, first = play.poses([0], step), 1 + step * config.block
        state, expected = play.model.step(state, poses)
        drawn, frames = play.model.step(drawn, poses, noise=horizon[:, :, first : first + config.block])
        assert torch.equal(frames, expected)
    assert_same(drawn, state)
    other, frames = play.model.step(drawn, play.poses([0], 3), noise=-horizon[:, :, : config.block])
    assert not torch.equal(frames, play.model.step(drawn, play.poses([0], 3))[1])
    assert other.index.tolist() == (drawn.index + config.block).tolist()


# ---- forks and snapshots ----------------------------------------------------------------------------------


def test_a_fork_equals_its_original_bit_for_bit(play, assert_same: Callable) -> None:
    state = play.run([1], play.settled)
    poses, elsewhere = play.poses([1], play.settled), play.poses([4], 0)
    fork, taken = state.fork(1), state[0]
    first, frames = play.model.step(state, poses)
    away, other = play.model.step(state, elsewhere)  # another future of the same past
    for copy in (fork, taken, state):
        after, same = play.model.step(copy, poses)
        assert torch.equal(same, frames)
        assert_same(after, first)
    assert not torch.equal(other, frames)
    assert not torch.equal(away.pose, first.pose)


def test_many_forks_are_one_world_until_their_seeds_differ(play) -> None:
    state = play.run([1], 2)
    poses = play.poses([1], 2).expand(3, -1, -1, -1)
    same, _ = play.model.step_latent(state.fork(3), poses)
    assert relative(same.delta[0].numerator[0], same.delta[0].numerator[2]) < 1e-5
    seeded = state.fork(3, seeds=[11, 12, 11])
    assert seeded.seed.tolist() == [11, 12, 11]
    _, latents = play.model.step_latent(seeded, poses)
    assert relative(latents.values[0], latents.values[2]) < 1e-5
    assert relative(latents.values[0], latents.values[1]) > 1e-2


@pytest.mark.parametrize("age", ["fresh", "settled"])
def test_save_load_step_equals_step_bit_for_bit(play, tmp_path: Path, assert_same: Callable, age: str) -> None:
    steps = 0 if age == "fresh" else play.settled
    state = play.run([0, 3], steps)
    state.save(tmp_path / "world.safetensors")
    loaded = WorldState.load(tmp_path / "world.safetensors")
    assert_same(loaded, state)
    for step in range(steps, steps + 2):
        poses = play.poses([0, 3], step)
        (state, frames), (loaded, same) = play.model.step(state, poses), play.model.step(loaded, poses)
        assert torch.equal(same, frames)
        assert_same(loaded, state)


# ---- worlds of one batch ----------------------------------------------------------------------------------


def test_a_world_alone_makes_the_same_latents_as_in_a_batch(play) -> None:
    steps = play.settled
    batch = play.run(ALL, steps)
    noise = latent_noise(batch.seed, batch.index[:, None], (2, 3, 4))
    _, together = play.model.step_latent(batch, play.poses(ALL, steps))
    for i in ALL:
        alone = batch[i]
        assert torch.equal(latent_noise(alone.seed, alone.index[:, None], (2, 3, 4)), noise[i : i + 1])
        _, latents = play.model.step_latent(alone, play.poses([i], steps))
        assert relative(latents.values, together.values[i : i + 1]) <= 1e-5


def test_a_world_alone_shows_the_same_frames_as_in_a_batch_over_eight_steps(play) -> None:
    together, alone = play.start(ALL), play.start([2])
    for step in range(8):
        together, frames = play.model.step(together, play.poses(ALL, step))
        alone, same = play.model.step(alone, play.poses([2], step))
        assert furthest(same, frames[2:3]) <= 2, f"step {step}"
    assert 20 < frames.float().std() < 90  # neither grey nor black and white, where nothing would show


def test_worlds_out_of_step_share_a_batch(play) -> None:
    ages = [0, 1, 0, play.settled, 2]  # some are before their first step
    singles = [play.run([i], age) for i, age in enumerate(ages)]
    batch = WorldState.cat(singles)
    index = [int(single.index) for single in singles]
    assert batch.index.tolist() == index
    for _ in range(2):
        poses = torch.cat([play.poses([i], age) for i, age in enumerate(ages)])
        batch, latents = play.model.step_latent(batch, poses)
        batch, frames = play.model.decode(batch, latents)
        for i in ALL:
            singles[i], own = play.model.step_latent(singles[i], poses[i : i + 1])
            singles[i], shown = play.model.decode(singles[i], own)
            assert own.index.tolist() == [max(index[i], 1)] == [int(latents.index[i])]
            assert relative(latents.values[i : i + 1], own.values) <= 3e-5
            assert furthest(frames[i : i + 1], shown) <= 1
            assert torch.equal(batch.pose[i], singles[i].pose[0])
        ages, index = [age + 1 for age in ages], batch.index.tolist()
        assert index == [int(single.index) for single in singles]
    order = [3, 0, 4]
    assert batch[order].index.tolist() == [index[i] for i in order]


def test_the_order_of_a_batch_does_not_matter(play) -> None:
    state, order = play.run(ALL, 1), [4, 2, 0, 3, 1]
    poses = play.poses(ALL, 1)
    _, expected = play.model.step_latent(state, poses)
    _, latents = play.model.step_latent(state[order], poses[order])
    assert relative(latents.values, expected.values[order]) <= 1e-5


# ---- what a call may touch --------------------------------------------------------------------------------


@pytest.mark.parametrize("age", ["fresh", "settled"])
def test_no_call_changes_a_state_that_it_was_given(play, tmp_path: Path, copy_of: Callable, age: str) -> None:
    steps = 0 if age == "fresh" else play.settled
    state, poses = play.run([0, 1], steps), play.poses([0, 1], steps)
    before, given_poses = copy_of(state), poses.clone()
    after, latents = play.model.step_latent(state, poses)
    between = copy_of(after)
    decoded, _ = play.model.decode(after, latents)
    play.model.step(decoded, play.poses([0, 1], steps + 1))
    state.save(tmp_path / "world.safetensors")
    WorldState.cat([state, after[0], state[[1, 0]].fork(2) if len(state) == 1 else state[1].fork(2)])
    for kept, copies in ((state, before), (after, between)):
        tensors = named_tensors(kept)
        assert tensors.keys() == copies.keys()
        assert all(torch.equal(tensors[name], copies[name]) for name in copies)
    assert torch.equal(poses, given_poses)


def test_a_state_does_not_share_the_callers_memory(play) -> None:
    pictures, poses = play.pictures[:1].copy(), play.poses([0], 0).numpy().copy()
    state, frames = play.model.reset(pictures)
    start, shown = state.start.clone(), frames.clone()
    after, _ = play.model.step(state, poses)
    pose = after.pose.clone()
    pictures[:], poses[:] = 0, 0
    assert torch.equal(state.start, start)
    assert torch.equal(after.pose, pose)
    assert torch.equal(frames, shown)


def test_a_donated_state_is_consumed(play, assert_same: Callable) -> None:
    kept, poses = play.run([0], 1), play.poses([0], 1)
    state = kept[0]
    after, frames = play.model.step(state, poses, donate=True)
    expected, same = play.model.step(kept, poses)
    assert torch.equal(frames, same)
    assert_same(after, expected)
    for use in (
        lambda: play.model.step(state, poses),
        lambda: state[0],
        lambda: state.fork(2),
        lambda: WorldState.cat([state]),
        lambda: state.save("never"),
        lambda: len(state),
        lambda: state.bytes_per_world(),
    ):
        with pytest.raises(StateError, match="expected a live state, got one that was donated"):
            use()


def test_a_refused_step_does_not_consume(play) -> None:
    state = play.start([0])
    with pytest.raises(InputError):
        play.model.step(state, torch.zeros(1, 1, 4, 4), donate=True)
    play.model.step(state, play.poses([0], 0))


# ---- decoding ---------------------------------------------------------------------------------------------


def test_latents_ahead_of_their_frames_are_decoded_in_order(play) -> None:
    state = play.run([0, 1], 1)
    ahead, first = play.model.step_latent(state, play.poses([0, 1], 1))
    ahead, second = play.model.step_latent(ahead, play.poses([0, 1], 2))
    ahead, one = play.model.decode(ahead, first)
    ahead, two = play.model.decode(ahead, second)
    for step, frames in ((1, one), (2, two)):
        state, expected = play.model.step(state, play.poses([0, 1], step))
        assert torch.equal(frames, expected)


def test_decoding_out_of_order_names_both_indices(play) -> None:
    state, block = play.run([0, 1], 1), play.model.config.block
    after, first = play.model.step_latent(state, play.poses([0, 1], 1))
    after, second = play.model.step_latent(after, play.poses([0, 1], 2))
    one, two = [1 + block] * 2, [1 + 2 * block] * 2
    with pytest.raises(StateError, match=rf"expected latents from index {one}.*got {two}".replace("[", r"\[")):
        play.model.decode(after, second)
    after, _ = play.model.decode(after, first)
    with pytest.raises(StateError, match=rf"expected latents from index {two}.*got {one}".replace("[", r"\[")):
        play.model.decode(after, first)
    with pytest.raises(StateError, match="expected latents from index"):
        play.model.decode(after, LatentChunk(second.index[:1], second.values[:1]))
