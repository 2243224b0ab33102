"""Save, restore, step is bit-exact; forks do not disturb each other; a restored world continues its recording."""

import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from gymnasium.utils.env_checker import data_equivalence

Make = Callable[[], gym.Env]
STEPS = 2

CONTINUE = """
import json, pickle, sys
import gymnasium as gym, sanawm_env, torch
torch.set_num_threads({threads})
env = gym.make({env_id!r}, **json.loads({arguments!r}))
env.reset()
env.unwrapped.set_state(type(env.unwrapped.get_state()).load({folder!r}))
actions = pickle.load(open({actions!r}, "rb"))
pickle.dump([env.unwrapped.step(action) for action in actions], open({out!r}, "wb"))
"""


@pytest.fixture(scope="module")
def flown(make: Make) -> tuple[Any, Any, Any, list[Any], list[Any]]:
    """An environment after two steps: its state, its last result, actions to come, what they lead to."""
    env = make()
    env.action_space.seed(0)
    env.reset(seed=5)
    for _ in range(STEPS):
        last = env.unwrapped.step(env.action_space.sample())
    actions = [env.action_space.sample() for _ in range(STEPS)]
    state = env.unwrapped.get_state()
    return env.unwrapped, state, last, actions, fly(env.unwrapped, actions)


def fly(env: Any, actions: Sequence[Any]) -> list[Any]:
    return [env.step(action) for action in actions]


def assert_equal(one: Any, other: Any) -> None:
    assert data_equivalence(one, other, exact=True)


def test_a_restored_world_goes_on_bit_for_bit(flown: Any) -> None:
    env, state, last, actions, expected = flown
    observation, info = env.set_state(state)
    assert_equal(observation, last[0])
    assert_equal(info, last[-1])
    assert_equal(fly(env, actions), expected)


def test_it_goes_on_in_another_environment_and_from_disk(make: Make, flown: Any, tmp_path: Path) -> None:
    _, state, _, actions, expected = flown
    state.save(tmp_path / "state")
    loaded = type(state).load(tmp_path / "state")
    other = make().unwrapped
    for copied in (loaded, pickle.loads(pickle.dumps(state)), copy.deepcopy(state)):
        other.set_state(copied)
        assert_equal(fly(other, actions), expected)


def test_it_goes_on_in_another_process(flown: Any, slow_id: str, pytestconfig: pytest.Config, tmp_path: Path) -> None:
    _, state, _, actions, expected = flown
    state.save(tmp_path / "state")
    (tmp_path / "actions").write_bytes(pickle.dumps(actions))
    program = CONTINUE.format(
        threads=torch.get_num_threads(),
        env_id=slow_id,
        arguments=json.dumps(json.loads(pytestconfig.getoption("env_kwargs"))),
        folder=str(tmp_path / "state"),
        actions=str(tmp_path / "actions"),
        out=str(tmp_path / "out"),
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert_equal(pickle.loads((tmp_path / "out").read_bytes()), expected)


def test_forks_do_not_disturb_each_other(flown: Any) -> None:
    env, state, _, actions, expected = flown
    env.set_state(state)
    one, two, three = env.fork(3)
    fly(two, actions[::-1])
    assert_equal(fly(one, actions), expected)
    assert_equal(fly(env, actions), expected)
    three.reset(seed=0)
    env.set_state(state)
    assert_equal(fly(env, actions), expected)


def test_the_episodes_to_come_are_restored_too(flown: Any) -> None:
    env, state, *_ = flown
    env.set_state(state)
    expected = [env.reset(), env.reset()]
    env.set_state(state)
    assert_equal([env.reset(), env.reset()], expected)


def test_a_restored_world_continues_its_recording(flown: Any) -> None:
    env, state, last, actions, _ = flown
    env.reset(seed=1)
    env.set_state(state)
    info = env.step(actions[0])[-1]
    first, end = info["moved_frames"]
    assert first == last[-1]["moved_frames"][1] + 1
    assert info["time"] - last[-1]["time"] == pytest.approx((end - first + 1) * last[-1]["time"] / (first - 1))
