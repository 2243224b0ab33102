"""Reliability: what a step adds to doubt, what is remembered, and the end of what cannot be trusted."""

from pathlib import Path

import numpy as np
import pytest

from sanawm_env.camera_env import CameraEnv, Settings
from sanawm_env.env import SanaWMEnv
from sanawm_env.reliability import Change, Reliability, Seeds, apart
from sanawm_env.snapshot import EnvState
from sanawm_env.vector import SanaWMVectorEnv
from sanawm_env.world_model_engine import WorldModelEngine
from world_model.errors import InputError, StateError

AHEAD = np.array([0, 0, 1, 0, 0, 0], np.float32)
TURN = np.array([0, 0, 0, 0, 1, 0], np.float32)


def reliabilities(env: SanaWMEnv, actions: list[np.ndarray]) -> list[float]:
    return [env.step(action)[-1]["reliability"] for action in actions]


def test_unrelated_latents_are_one_picture_apart() -> None:
    one, other = np.random.default_rng(0).standard_normal((2, 3, 48, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(apart(one, other), 1, atol=0.1)
    assert apart(one, one).tolist() == [0, 0, 0]
    assert apart(one, one + np.float32(1)).tolist() == pytest.approx([0.5] * 3)


def test_every_step_adds_the_change_of_the_latents(any_folder: Path) -> None:
    env = SanaWMEnv(model=any_folder, obs="latent", task="none")
    before, info = env.reset(seed=0)
    assert info["reliability"] == 1
    doubt = 0.0
    for action in (AHEAD, TURN, AHEAD):
        after, *_, info = env.step(action)
        doubt += np.square(after.astype(np.float64) - before).mean() / 2
        assert type(info["reliability"]) is float
        assert info["reliability"] == pytest.approx(1 / (1 + doubt), rel=1e-9)
        before = after
    assert doubt > 0


def test_seeds_add_how_far_other_noise_leads(any_folder: Path) -> None:
    env = SanaWMEnv(model=any_folder, reliability="seeds", task="none", obs="latent")
    env.reset(seed=3)
    state = env.get_state()
    latent, *_, info = env.step(AHEAD)
    other = SanaWMEnv(model=any_folder, task="none", obs="latent", reliability=None)
    other.set_state(state.fork(1, seeds=[(state.episodes[0].world_seed * 1_000_003 + 1) % 2**31]))
    doubt = np.square(latent.astype(np.float64) - other.step(AHEAD)[0]).mean() / 2
    assert doubt > 0
    assert info["reliability"] == pytest.approx(1 / (1 + doubt), rel=1e-9)
    np.testing.assert_array_equal(env.get_state().episodes[0].latent, latent)  # the world itself went on undisturbed


@pytest.mark.parametrize("measure", ["change", "seeds"])
def test_it_is_part_of_snapshots(model_folder: Path, tmp_path: Path, measure: str) -> None:
    env = SanaWMEnv(model=model_folder, reliability=measure)
    env.reset(seed=1)
    reliabilities(env, [AHEAD, TURN])
    state = env.get_state()
    expected = reliabilities(env, [TURN, AHEAD])
    assert expected == sorted(expected, reverse=True)
    state.save(tmp_path / "state")
    for restored in (state, EnvState.load(tmp_path / "state")):
        assert 0 < env.set_state(restored)[1]["reliability"] < 1
        assert reliabilities(env, [TURN, AHEAD]) == expected
    assert env.reset()[1]["reliability"] == 1


@pytest.mark.parametrize("measure", ["change", "seeds"])
def test_each_world_of_many_has_its_own(model_folder: Path, measure: str) -> None:
    worlds = SanaWMVectorEnv(2, model=model_folder, reliability=measure)
    assert worlds.reset(seed=5)[1]["reliability"].tolist() == [1, 1]
    together = [worlds.step(np.stack([AHEAD, TURN]))[-1]["reliability"] for _ in range(3)]
    for i, action in enumerate((AHEAD, TURN)):
        env = SanaWMEnv(model=model_folder, reliability=measure)
        env.reset(seed=5 + i)
        np.testing.assert_allclose(np.stack(together)[:, i], reliabilities(env, [action] * 3), rtol=1e-4)


def test_what_cannot_be_trusted_is_truncated(model_folder: Path) -> None:
    env = SanaWMEnv(model=model_folder)
    env.reset(seed=0)
    first, second = reliabilities(env, [AHEAD, AHEAD])
    least = (first + second) / 2
    env = SanaWMEnv(model=model_folder, min_reliability=least)
    env.reset(seed=0)
    assert [env.step(AHEAD)[2:4] for _ in range(2)] == [(False, False), (False, True)]
    with pytest.raises(StateError, match="ended"):
        env.step(AHEAD)
    worlds = SanaWMVectorEnv(1, model=model_folder, min_reliability=least)
    worlds.reset(seed=0)
    assert [worlds.step(AHEAD[None])[3].tolist() for _ in range(2)] == [[False], [True]]


def test_turned_off_or_wrong(model_folder: Path) -> None:
    env = SanaWMEnv(model=model_folder, reliability=None)
    assert "reliability" not in env.reset(seed=0)[1]
    assert "reliability" not in env.step(AHEAD)[-1]
    with pytest.raises(StateError, match="reliability"):
        SanaWMEnv(model=model_folder).set_state(env.get_state())
    for wrong, match in (
        ({"reliability": "luck"}, r"expected one of \['change', 'seeds'\] or a Measure, got 'luck'"),
        ({"reliability": Change}, "expected one of"),
        ({"min_reliability": 1.5}, "from 0 to 1, got 1.5"),
        ({"reliability": None, "min_reliability": 0.5}, "expected a measure"),
    ):
        with pytest.raises(InputError, match=match):
            SanaWMEnv(model=model_folder, **wrong)


def test_an_engine_without_latents_has_none(model_folder: Path) -> None:
    engine = WorldModelEngine(model_folder)
    env = CameraEnv(engine, Settings(task="none", reliability=Reliability(measure=Seeds())))
    episode = SanaWMEnv(model=model_folder)
    episode.reset(seed=0)
    state = episode.get_state()
    reliability = env.simulator.reliability
    assert reliability is not None
    with pytest.raises(InputError, match="expected an engine with latents"):
        reliability.after(engine, state.world, state.episodes, np.tile(np.eye(4), (1, 4, 1, 1)), None)
