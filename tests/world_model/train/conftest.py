"""The toy world that several objectives learn from, written once."""

from pathlib import Path

import pytest

from tests.world_model.train.toy_world import write_toy_world


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See toy_world.write_toy_world; nobody writes into it."""
    return write_toy_world(tmp_path_factory.mktemp("toy_world"))
