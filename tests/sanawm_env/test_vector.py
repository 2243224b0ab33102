"""Many worlds in one forward: each agrees with the single environment, whatever the others do."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from sanawm_env.env import SanaWMEnv
from sanawm_env.snapshot import EnvState
from sanawm_env.tasks import NoTask, Reach
from sanawm_env.vector import SanaWMVectorEnv
from world_model.errors import InputError, StateError

STILL = np.zeros(6, np.float32)
AHEAD = np.array([0, 0, 1, 0, 0, 0], np.float32)


def assert_close(one: Any, other: Any) -> None:
    """Equal but for the rounding of pixels, 2 of 255 at most, and of what latents tell."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert sorted(one) == sorted(other)
        np.testing.assert_allclose(one.get("reliability", 1.0), other.get("reliability", 1.0), rtol=1e-4)
        for key in set(one) - {"reliability"}:
            assert_close(one[key], other[key])
    elif isinstance(one, np.ndarray) and one.dtype == np.uint8:
        assert np.abs(one.astype(int) - other).max() <= 2
    elif isinstance(one, np.ndarray) and one.dtype == object:
        for a, b in zip(one, other, strict=True):
            assert_close(a, b)
    else:
        np.testing.assert_array_equal(one, other)


def test_make_vec_makes_it(model_folder: Path) -> None:
    worlds = gym.make_vec("SanaWM-v0", num_envs=3, model=str(model_folder), max_episode_steps=7, obs="dict")
    inner = worlds.unwrapped
    assert isinstance(inner, SanaWMVectorEnv)
    assert (inner.num_envs, inner.max_episode_steps) == (3, 7)
    assert worlds.metadata["autoreset_mode"] is inner.autoreset_mode is AutoresetMode.NEXT_STEP
    assert worlds.spec is not None
    assert worlds.spec.to_json()
    assert len({id(env.model) for env in inner.envs}) == 1
    observations, infos = worlds.reset(seed=0)
    assert worlds.observation_space.contains(observations)
    assert infos["scene"].shape == (3,)
    observations, rewards, terminated, truncated, _ = worlds.step(worlds.action_space.sample())
    assert worlds.observation_space.contains(observations)
    assert (rewards.dtype, terminated.dtype, truncated.dtype) == (np.float64, np.bool_, np.bool_)
    worlds.close()
    worlds.close()


def test_each_world_is_the_single_environment_with_its_seed(any_folder: Path) -> None:
    worlds = SanaWMVectorEnv(2, model=any_folder, info_frames=True)
    worlds.action_space.seed(0)
    actions = [worlds.action_space.sample() for _ in range(3)]
    results = [worlds.reset(seed=4), *(worlds.step(action) for action in actions)]
    for i in range(2):
        single = SanaWMEnv(model=any_folder, info_frames=True)
        expected = [single.reset(seed=4 + i), *(single.step(action[i]) for action in actions)]
        for got, wanted in zip(results, expected, strict=True):
            assert_close(got[0][i], wanted[0])
            assert_close({key: got[-1][key][i] for key in wanted[-1] if key != "scene"}, as_arrays(wanted[-1]))
            if len(wanted) == 5:
                assert got[1][i] == wanted[1]


def as_arrays(info: dict[str, Any]) -> dict[str, Any]:
    """An info whose numbers have the types that a batch gives them."""
    numpy = {bool: np.bool_, int: np.int64, float: np.float64}
    return {key: numpy.get(type(value), lambda v: v)(value) for key, value in info.items() if key != "scene"}


def test_latents_of_a_batch_agree_from_equal_states(model_folder: Path) -> None:
    single = SanaWMEnv(model=model_folder, obs="latent")
    states, expected = [], []
    for steps in (0, 1, 3):  # worlds out of step
        single.reset(seed=steps)
        for _ in range(steps):
            single.step(AHEAD)
        states.append(single.get_state())
        expected.append(single.step(AHEAD)[0])
    worlds = SanaWMVectorEnv(3, model=model_folder, obs="latent")
    worlds.set_state(EnvState.cat(states))
    latents = worlds.step(np.tile(AHEAD, (3, 1)))[0]
    assert np.abs(latents - np.stack(expected)).max() <= 1e-5 * np.abs(latents).max()


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_resets_are_gymnasiums(model_folder: Path, mode: AutoresetMode) -> None:
    # At 10 m/s world 1 reaches its goal in one step, again and again; the others run out of time.
    given = {"model": str(model_folder), "max_speed": 10.0, "max_episode_steps": 2}
    worlds = gym.make_vec("SanaWM-v0", num_envs=2, autoreset_mode=mode.value, **given)
    theirs = gym.make_vec(
        "SanaWM-v0", num_envs=2, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode}, **given
    )
    assert_close(*(env.reset(seed=3)[0] for env in (worlds, theirs)))
    seen = set()
    for _ in range(4):
        result, wanted = (env.step(np.stack([STILL, AHEAD])) for env in (worlds, theirs))
        for one, other in zip(result, wanted, strict=True):
            assert_close(one, other)
        ended = result[2] | result[3]
        seen |= {(bool(a), bool(b)) for a, b in zip(result[2], result[3], strict=True)}
        if mode is AutoresetMode.DISABLED and ended.any():
            with pytest.raises(StateError, match="got ended ones in worlds"):
                worlds.step(np.stack([STILL, AHEAD]))
            for one, other in zip(
                *(env.reset(options={"reset_mask": ended.copy()}) for env in (worlds, theirs)), strict=True
            ):
                assert_close(one, other)
    assert {(True, False), (False, True), (False, False)} <= seen | {(False, False)}


def test_options_for_all_and_for_each(model_folder: Path) -> None:
    worlds = SanaWMVectorEnv(2, model=model_folder)
    assert worlds.reset(options={"scene": 1})[1]["scene"].tolist() == ["scene-1", "scene-1"]
    each = [{"scene": 0}, {"scene": 2, "goal": [0, 0, 1]}]
    infos = worlds.reset(seed=[7, 7], options={"per_world": each, "prompt": "a room"})[1]
    assert infos["scene"].tolist() == ["scene-0", "scene-2"]
    assert infos["prompt"].tolist() == ["a room"] * 2
    assert infos["world_seed"][0] == infos["world_seed"][1]
    assert infos["goal"][1].tolist() == [0, 0, 1]


def test_worlds_can_be_reached_one_by_one(model_folder: Path) -> None:
    worlds = SanaWMVectorEnv(2, model=model_folder, render_mode="rgb_array")
    worlds.set_attr("task", [Reach(radius=0.5), "none"])
    assert worlds.get_attr("task") == (Reach(radius=0.5), NoTask())
    observations, _ = worlds.reset(seed=0)
    np.testing.assert_array_equal(np.stack([frame for frame in worlds.render() if frame is not None]), observations)
    assert worlds.step(np.stack([AHEAD, AHEAD]))[1][1] == 0
    assert worlds.call("scenes")[0] == ("scene-0", "scene-1", "scene-2")
    states = worlds.call("get_state")
    results = worlds.call("step_to", np.tile(states[0].episodes[0].pose, (4, 1, 1)))
    assert [result[-1]["moved_frames"].tolist() for result in results] == [[5, 8], [5, 8]]
    assert worlds.get_state().world.index.tolist() == [3, 3]
    assert worlds.step(np.stack([AHEAD, AHEAD]))[-1]["moved_frames"].tolist() == [[9, 12]] * 2


def test_forks_of_a_world_fly_together(model_folder: Path, env: SanaWMEnv) -> None:
    env.reset(seed=0)
    env.step(AHEAD)
    worlds = SanaWMVectorEnv(3, model=model_folder)
    worlds.set_state(env.get_state().fork(3))
    together = worlds.step(np.tile(AHEAD, (3, 1)))[0]
    assert_close(together[0], together[2])
    state = worlds.get_state()
    expected = worlds.step(np.tile(AHEAD, (3, 1)))
    worlds.set_state(state)
    again = worlds.step(np.tile(AHEAD, (3, 1)))
    np.testing.assert_array_equal(again[0], expected[0])  # the same batch: bit for bit
    worlds.set_state(env.get_state().fork(3, seeds=[1, 2, 3]))
    apart = worlds.step(np.tile(AHEAD, (3, 1)))[0]
    assert np.abs(apart[0].astype(int) - apart[1]).max() > 2


def test_bad_input_changes_no_world(model_folder: Path) -> None:
    worlds = SanaWMVectorEnv(2, model=model_folder)
    both = np.stack([AHEAD, AHEAD])
    with pytest.raises(StateError, match="step: expected running episodes, got none"):
        worlds.step(both)
    with pytest.raises(StateError, match="expected all worlds at the first reset"):
        worlds.reset(options={"reset_mask": np.array([True, False])})
    worlds.reset(seed=0)
    for actions, message in ((both * [[1], [2]], "in \\[-1, 1\\]"), (both[:1], "actions: expected 2, .*got 1")):
        with pytest.raises(InputError, match=message):
            worlds.step(actions)
    assert worlds.step(both)[-1]["moved_frames"].tolist() == [[1, 4], [1, 4]]
    for options, message in (
        ({"reset_mask": [True, False]}, r"reset_mask: expected an array \(2,\) bool"),
        ({"reset_mask": np.zeros(2, bool)}, "expected at least one world"),
        ({"per_world": [{}]}, "per_world: expected options for 2 worlds, got 1"),
    ):
        with pytest.raises(InputError, match=message):
            worlds.reset(options=options)
    with pytest.raises(InputError, match="seed: expected 2, one a world, got 1"):
        worlds.reset(seed=[1])
    with pytest.raises(InputError, match="set_attr 'task': expected 2 values, got 1"):
        worlds.set_attr("task", ["none"])
    with pytest.raises(StateError, match="set_state: expected 2 worlds, got 1"):
        worlds.set_state(worlds.get_state()[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_envs": 0}, "num_envs, max_episode_steps: expected at least 1"),
        ({"render_mode": "human"}, "render_mode: expected None or 'rgb_array', got 'human'"),
        ({"autoreset_mode": "Never"}, "autoreset_mode: expected one of .*'SameStep'.*, got 'Never'"),
    ],
)
def test_bad_arguments(model_folder: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SanaWMVectorEnv(**({"model": model_folder} | arguments))


def test_what_refused_its_arguments_is_closed_in_silence() -> None:
    SanaWMVectorEnv.__new__(SanaWMVectorEnv).close()  # as Gymnasium does when Python lets go of it
