"""The adapter to Stable-Baselines3, beside its own DummyVecEnv over single environments."""

import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from world_model.errors import BackendError, InputError

pytest.importorskip("stable_baselines3", reason="extra sb3")

from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from sanawm_env.learners.sb3 import SB3VecEnv, split

AHEAD = np.tile(np.array([0, 0, 1, 0, 0, 0], np.float32), (2, 1))


def make(model_folder: Path, **given: object) -> SB3VecEnv:
    arguments = {"model": str(model_folder), "max_episode_steps": 3, "autoreset_mode": "SameStep"} | given
    return SB3VecEnv(gym.make_vec("SanaWM-v0", num_envs=2, **arguments))


def test_their_checker_has_nothing_to_say(model_folder: Path, recwarn: pytest.WarningsRecorder) -> None:
    env = gym.make("SanaWM-v0", model=str(model_folder))
    check_env(env.unwrapped, warn=True)
    assert not [str(warning.message) for warning in recwarn if "stable_baselines3" in warning.filename]


@pytest.mark.parametrize("obs", ["rgb", "dict"])
def test_it_is_their_vec_env(model_folder: Path, obs: str) -> None:
    # World 1 reaches its goal, two metres ahead, in the second step; world 0 runs out of time in the third.
    ours = make(model_folder, obs=obs, max_speed=4.0)
    given = {"model": str(model_folder), "obs": obs, "max_episode_steps": 3, "max_speed": 4.0}
    theirs = DummyVecEnv([lambda: gym.make("SanaWM-v0", **given)] * 2)
    for env in (ours, theirs):
        env.seed(3)
        env.set_options([{}, {"goal": [0, 0, 2.0]}])
    agree(ours.reset(), theirs.reset())
    ends = []
    for actions in (AHEAD * [[0], [1]], AHEAD * [[0], [1]], AHEAD * 0, AHEAD * 0):
        actions = actions.astype(np.float32)
        one, other = ours.step(actions), theirs.step(actions)
        agree(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
        np.testing.assert_array_equal(one[2], other[2])
        for i, (info, wanted) in enumerate(zip(one[3], other[3], strict=True)):
            assert sorted(info) == sorted(wanted)
            assert info["TimeLimit.truncated"] == wanted["TimeLimit.truncated"]
            np.testing.assert_array_equal(info["pose"], wanted["pose"])
            if one[2][i]:
                agree(info["terminal_observation"], wanted["terminal_observation"])
                assert ours.reset_infos[i]["scene"] == theirs.reset_infos[i]["scene"]
                ends.append((i, info["TimeLimit.truncated"]))
    assert (1, False) in ends
    assert (0, True) in ends


def agree(one: object, other: object) -> None:
    """Equal but for the rounding of pixels in another batch size."""
    if isinstance(one, dict):
        assert isinstance(other, dict)
        for key in one:
            agree(one[key], other[key])
    else:
        assert np.abs(np.asarray(one, float) - np.asarray(other, float)).max() <= 2


def test_worlds_can_be_reached_one_by_one(model_folder: Path) -> None:
    worlds = make(model_folder, render_mode="rgb_array")
    worlds.seed(0)
    observations = worlds.reset()
    worlds.set_attr("info_frames", True, indices=1)
    assert worlds.get_attr("info_frames") == [False, True]
    assert worlds.env_method("scenes", indices=[1]) == [("scene-0", "scene-1", "scene-2")]
    assert worlds.env_is_wrapped(gym.Wrapper) == [False, False]
    np.testing.assert_array_equal(np.stack(worlds.get_images()), observations)
    with pytest.raises(InputError, match=r"expected all worlds, which it moves, got \[0\]"):
        worlds.env_method("set_state", None, indices=0)
    with pytest.raises(InputError, match="expected actions from step_async, got none"):
        worlds.step_wait()
    worlds.close()


def test_another_autoreset_mode_is_refused(model_folder: Path) -> None:
    with pytest.raises(InputError, match="expected 'SameStep', got 'NextStep'"):
        make(model_folder, autoreset_mode="NextStep")


def test_their_ppo_learns_on_it(model_folder: Path) -> None:
    from stable_baselines3 import PPO

    worlds = VecMonitor(make(model_folder, max_episode_steps=4))
    learner = PPO("CnnPolicy", worlds, n_steps=4, batch_size=8, n_epochs=1, seed=0)
    before = [parameter.detach().clone() for parameter in learner.policy.parameters()]
    learner.learn(16)
    assert learner.num_timesteps == 16
    assert len(learner.ep_info_buffer or ()) == 4
    assert any((old != new).any() for old, new in zip(before, learner.policy.parameters(), strict=True))


def test_infos_of_a_batch_are_told_apart() -> None:
    batch = {"a": np.array([1, 0]), "_a": np.array([True, False]), "b": {"c": np.array([2, 3]), "_c": np.array([1, 1])}}
    assert split(batch, 2) == [{"a": 1, "b": {"c": 2}}, {"b": {"c": 3}}]


def test_an_absent_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "stable_baselines3.common.vec_env", None)
    monkeypatch.delitem(sys.modules, "sanawm_env.learners.sb3")
    with pytest.raises(BackendError, match=r"sanawm-env\[sb3\]"):
        __import__("sanawm_env.learners.sb3")
