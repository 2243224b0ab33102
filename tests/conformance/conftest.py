"""What any environment of ours must do, whichever renders it.

pytest tests/conformance --env-id SanaWM-v0 --env-kwargs '{"obs": "latent"}'
"""

import json
from collections.abc import Callable

import gymnasium as gym
import pytest

from sanawm_env.registration import ENTRY_POINTS, IDS


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "env_id" in metafunc.fixturenames:
        metafunc.parametrize("env_id", metafunc.config.getoption("env_id") or IDS, scope="session")


@pytest.fixture
def slow_id(env_id: str, pytestconfig: pytest.Config) -> str:
    """The id for tests that are slow: one of each class, unless ids are named; the others are the same with a task."""
    if pytestconfig.getoption("env_id") is None and env_id not in ENTRY_POINTS:
        pytest.skip(f"{env_id} is of a class that another id stands for")
    return env_id


@pytest.fixture(scope="session")
def make(env_id: str, pytestconfig: pytest.Config) -> Callable[[], gym.Env]:
    """A function that makes the environment as users do."""
    arguments = json.loads(pytestconfig.getoption("env_kwargs"))
    return lambda: gym.make(env_id, **arguments)
