"""Worlds with a refiner: the first stage is untouched, the refiner is causal, cached, and part of the state's value."""

import dataclasses
from pathlib import Path

import pytest
import torch

from tests.world_model.conftest import Play, randomise_
from world_model.checkpoint import save_folder
from world_model.errors import CheckpointError, InputError, StateError
from world_model.model import WorldModel
from world_model.presets import nano, tiny_sana
from world_model.refiner import Refiner, load_refiner, refiner_config, save_refiner
from world_model.state import WorldState
from world_model.transformer import SanaWM

STEPS = (600, 300, 0)


@pytest.fixture(scope="module", params=["nano", "tiny_sana"])
def pair(request: pytest.FixtureRequest) -> tuple[Play, Play]:
    """The same worlds without and with a refiner of fewer blocks."""
    words = ("a", "room", "with", "red", "ball")
    plain = Play.of(nano(words) if request.param == "nano" else tiny_sana())
    return plain, Play(with_refiner(plain.model), plain.pictures)


def with_refiner(model: WorldModel, seed: int = 7) -> WorldModel:
    config = refiner_config(model.config, STEPS, depth=model.config.transformer.softmax_every)
    refiner = Refiner(config, randomise_(SanaWM(config.transformer), seed))  # pyright: ignore[reportArgumentType]
    return WorldModel(model.config, model.transformer, model.tokenizer, model.text, refiner)


def test_the_first_stage_plays_the_same_world_with_and_without(pair: tuple[Play, Play], assert_same) -> None:
    plain, refined = (play.run([0, 1], 3) for play in pair)
    assert not torch.equal(plain.previous, refined.previous)  # what is decoded is another
    assert_same(dataclasses.replace(refined, refined=(), model=plain.model, previous=plain.previous), plain)
    assert refined.refined[0].index.tolist() == refined.index.tolist()


def test_snapshots_forks_and_slots_go_on_bit_for_bit(pair: tuple[Play, Play], tmp_path: Path, assert_same) -> None:
    play = pair[1]
    state = play.run([0, 1, 2], play.settled)
    after, frames = play.model.step(state, play.poses([0, 1, 2], play.settled))
    state.save(tmp_path / "state.safetensors")
    loaded = WorldState.load(tmp_path / "state.safetensors")
    assert_same(loaded, state)
    again, frames_again = play.model.step(loaded, play.poses([0, 1, 2], play.settled))
    assert_same(again, after)
    assert torch.equal(frames_again, frames)
    assert_same(WorldState.cat([state[[0, 1]], state[2]]), state)
    kept, other = state[1].fork(2).refined[0], state[1].fork(2, [8, 9]).refined[0]
    assert kept.seed.tolist() == [11, 11]
    assert other.seed.tolist() == [8, 9]


def test_worlds_of_different_ages_step_together_as_they_do_alone(pair: tuple[Play, Play]) -> None:
    play = pair[1]
    old, young = play.run([0], play.settled), play.run([1], 1)
    paths = torch.cat([play.poses([0], play.settled), play.poses([1], 1)])
    together, frames = play.model.step(WorldState.cat([old, young]), paths)
    for i, state in enumerate((old, young)):
        alone, own = play.model.step(state, paths[i : i + 1])
        assert (frames[i].int() - own[0].int()).abs().max() <= 2
        error = (together[i].refined[0].tails[-1] - alone.refined[0].tails[-1]).norm()
        assert error <= 1e-4 * alone.refined[0].tails[-1].norm()


def test_refined_latents_depend_on_the_refiners_own_past(pair: tuple[Play, Play]) -> None:
    play = pair[1]
    state = play.run([0, 1], 2)
    swapped = dataclasses.replace(state, refined=(state.refined[0][[1, 0]],))
    poses = play.poses([0, 1], 2)
    _, latents = play.model.step_latent(state, poses)
    _, others = play.model.step_latent(swapped, poses)
    assert not torch.allclose(latents.values, others.values)


def test_states_of_a_model_without_a_refiner_are_refused(pair: tuple[Play, Play]) -> None:
    plain, refined = pair
    with pytest.raises(StateError, match="expected a state of model"):
        refined.model.step(plain.start([0]), plain.poses([0], 0))
    other = with_refiner(plain.model, seed=8)
    assert other.fingerprint != refined.model.fingerprint != plain.model.fingerprint


def test_a_folder_with_a_refiner_plays_with_and_without(tmp_path: Path) -> None:
    model = Play.of(tiny_sana()).model
    save_folder(tmp_path, model.config, (model.transformer, model.tokenizer, model.text), torch.float32)
    with pytest.raises(CheckpointError, match=r"refiner\.json: expected a refiner's config"):
        WorldModel.from_pretrained(tmp_path, refine=True)
    refined = with_refiner(model)
    assert refined.refiner is not None
    save_refiner(tmp_path, refined.refiner, torch.float32)
    assert WorldModel.from_pretrained(tmp_path).fingerprint == model.fingerprint
    assert WorldModel.from_pretrained(tmp_path, refine=True).fingerprint == refined.fingerprint
    with pytest.raises(CheckpointError, match=r"the world model's fps, 30\.0, got 16\.0"):
        load_refiner(tmp_path, dataclasses.replace(model.config, fps=30.0))


def test_what_it_costs_is_told(pair: tuple[Play, Play]) -> None:
    refiner = pair[1].model.refiner
    assert refiner is not None
    weights = sum(p.numel() for p in refiner.transformer.parameters())
    assert refiner.cost() == f"{weights / 1e6:.2f} M parameters, 3 forwards a chunk"
    assert pair[1].start([0]).bytes_per_world() > 1.3 * pair[0].start([0]).bytes_per_world()


@pytest.mark.parametrize(("steps", "depth", "message"), [((1000, 0), 0, "below 1000"), (STEPS, 99, "at most")])
def test_impossible_refiners_are_refused(steps: tuple[int, ...], depth: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        refiner_config(tiny_sana(), steps, depth)
