"""Gymnasium's contract: its checker is silent, equal seeds give equal episodes, what is returned is the user's own."""

import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
from gymnasium.utils.env_checker import check_env, data_equivalence

import sanawm_env  # noqa: F401  (registers the environments)
from sanawm_env.registration import IDS

Make = Callable[[], gym.Env]


def fly(env: gym.Env, seed: int) -> list[Any]:
    env.action_space.seed(seed)
    return [env.reset(seed=seed), *(env.step(env.action_space.sample()) for _ in range(2))]


def test_the_checker_is_silent(make: Make) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = make()
        check_env(env.unwrapped)
        fly(env, 0)  # through the passive checker too
        env.close()
        env.close()


def test_every_id_is_checked() -> None:
    assert {name for name in gym.registry if name.startswith("SanaWM")} == set(IDS)


def test_equal_seeds_give_equal_episodes(make: Make) -> None:
    one, two = make(), make()
    expected = fly(one, 3)
    fly(two, 4)
    assert data_equivalence(fly(two, 3), expected, exact=True)
    assert not data_equivalence(fly(two, 4), expected, exact=True)
