"""Ours and another distribution's `kernels` in one environment: both stay usable, however ours is installed.

Every case is a virtual environment of its own. It reads the dependencies of the environment that runs the
tests through a .pth file, which does not follow the .pth files there, so the editable install that may live
there stays unseen. Everything is built without isolation: no network is touched.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ["pyproject.toml", "README.md", "LICENSE", "kernels", "world_model", "sanawm_env", "bridges"]
USE_OTHERS = "import kernels, kernels.hub; assert kernels.ANSWER == 42 and kernels.hub.ANSWER == 43;"
USE_OURS = "import world_model, kernels.delta_rule; assert callable(kernels.delta_rule.delta_rule);"


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    # "/" as working directory: nothing of this checkout is importable by standing in it.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [str(part) for part in command], cwd="/", env=clean | environment, capture_output=True, text=True
    )


def pip(*arguments: str | Path) -> None:
    done = run(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments)
    assert done.returncode == 0, f"pip {arguments}:\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is packaged: the build leaves nothing in the checkout and finds nothing stale there."""
    target = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            skip = shutil.ignore_patterns("__pycache__", "assets")
            shutil.copytree(ROOT / name, target / name, ignore=skip)
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, target / name)
    stand_in = target / "world_model" / "assets" / "nano" / "starts" / "00.png"
    stand_in.parent.mkdir(parents=True)  # the real weights would only make the wheel slow
    stand_in.write_bytes(b"picture")
    return target


@pytest.fixture(scope="module")
def wheels(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Wheels of ours and of a dummy distribution that owns a regular package `kernels`."""
    other = tmp_path_factory.mktemp("other")
    (other / "kernels").mkdir()
    (other / "kernels" / "__init__.py").write_text("ANSWER = 42\n")
    (other / "kernels" / "hub.py").write_text("ANSWER = 43\n")
    (other / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "kernels"\nversion = "1.0"\n[tool.setuptools]\npackages = ["kernels"]\n'
    )
    folder = tmp_path_factory.mktemp("wheels")
    pip("wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", folder, other, sources)
    return {"other": next(folder.glob("kernels-*.whl")), "ours": next(folder.glob("sanawm_env-*.whl"))}


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """The interpreter of a fresh environment that sees the dependencies and nothing of ours."""
    venv.create(tmp_path / "env", with_pip=False, symlinks=os.name != "nt")
    paths = {"base": str(tmp_path / "env"), "platbase": str(tmp_path / "env")}
    site = Path(sysconfig.get_path("purelib", vars=paths))
    here = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    (site / "dependencies.pth").write_text("\n".join(here) + "\n")
    return Path(sysconfig.get_path("scripts", vars=paths)) / "python"


def install(python: Path, *what: str | Path) -> None:
    # --ignore-installed: the dependencies' environment may hold this distribution, and must keep it.
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed"]
    pip("--python", python, "install", *options, *what)


def test_the_wheel_holds_our_files_and_only_ours(wheels: dict[str, Path]) -> None:
    names = set(zipfile.ZipFile(wheels["ours"]).namelist())
    assert "kernels/__init__.py" not in names
    assert {"kernels/delta_rule/__init__.py", "world_model/assets/nano/starts/00.png"} <= names
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == set(SOURCES[3:])


@pytest.mark.parametrize("order", [("other", "ours"), ("ours", "other")])
def test_a_wheel_beside_the_other(python: Path, wheels: dict[str, Path], order: tuple[str, str]) -> None:
    use = {"other": USE_OTHERS, "ours": USE_OURS}
    for name in order:
        install(python, wheels[name])
    done = run(python, "-c", "".join(use[name] for name in order))
    assert done.returncode == 0, done.stderr


def test_removing_a_wheel_leaves_the_other(python: Path, wheels: dict[str, Path]) -> None:
    install(python, *wheels.values())
    pip("--python", python, "uninstall", "--yes", "sanawm-env")
    assert run(python, "-c", USE_OTHERS).returncode == 0, "uninstalling ours took files of the other"
    assert run(python, "-c", "import kernels.delta_rule").returncode != 0, "ours is still there"


def test_an_editable_install_beside_the_other(python: Path, wheels: dict[str, Path], sources: Path) -> None:
    install(python, wheels["other"], "--editable", sources)
    done = run(python, "-c", USE_OTHERS + USE_OURS)
    assert done.returncode == 0, done.stderr


def test_a_bare_checkout_beside_the_other_says_why_it_fails(
    python: Path, wheels: dict[str, Path], sources: Path
) -> None:
    assert run(python, "-c", "import world_model", PYTHONPATH=str(sources)).returncode == 0, "alone it works"

    install(python, wheels["other"])  # later on the path, yet a regular package hides a namespace portion
    done = run(python, "-c", "import world_model", PYTHONPATH=str(sources))
    assert done.returncode != 0
    message = done.stderr.splitlines()[-1]
    assert message.startswith("ImportError: world_model needs kernels.delta_rule")
    assert str(Path("kernels", "__init__.py")) in message, "names the package that it found instead"
    assert "pip install" in message
