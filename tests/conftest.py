"""Options and settings of every test. Imports no gymnasium: the GPU machines run tests without it."""

import os
from pathlib import Path

import pytest
import torch

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden",
        action="append",
        type=Path,
        metavar="DIR",
        help="folder of golden files to compare with; may be given several times (default: tests/golden)",
    )
    parser.addoption(
        "--env-id",
        action="append",
        metavar="ID",
        help="environment to run tests/conformance on; may be given several times (default: all that are registered)",
    )
    parser.addoption(
        "--env-kwargs",
        default="{}",
        metavar="JSON",
        help="arguments that tests/conformance gives to gym.make",
    )


def golden_folders(config: pytest.Config) -> list[Path]:
    """The folders named by --golden, or the one that the repository ships."""
    folders = [Path(folder).resolve() for folder in config.getoption("golden") or [GOLDEN]]
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if missing:
        raise pytest.UsageError(f"--golden: expected existing folders, got {', '.join(missing)}")
    return folders


@pytest.fixture(scope="session")
def golden_dirs(pytestconfig: pytest.Config) -> list[Path]:
    """Folders with golden files, each to be compared with in full."""
    return golden_folders(pytestconfig)


@pytest.fixture
def golden_dir(request: pytest.FixtureRequest) -> Path:
    """One folder with golden files; a test that asks for it runs once for each folder."""
    return request.param


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "golden_dir" in metafunc.fixturenames:
        folders = golden_folders(metafunc.config)
        metafunc.parametrize("golden_dir", folders, ids=[folder.name for folder in folders], indirect=True)


def pytest_configure(config: pytest.Config) -> None:
    # Where pygame is installed, Gymnasium's checker opens windows: on no screen.
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    # Two threads: more only quarrel over the cores of a small CI machine.
    torch.set_num_threads(min(2, torch.get_num_threads()))
