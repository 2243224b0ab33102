"""The shape of the repository: which folder may import which, how long a file may be, what lies where."""

import ast
import functools
import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = ["kernels", "world_model", "sanawm_env", "bridges", "examples"]  # each imports only those before it
TOP_FILES = {
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "constraints.txt",
    "noxfile.py",
    "pyproject.toml",
}
TOP_FOLDERS = {*LAYERS, "tests", "docs"}
CEILING, TRITON_CEILING, EXAMPLE_CEILING = 400, 600, 80


def tracked_files() -> list[Path]:
    """Files that git holds or would add; every file of the tree where git is absent (an unpacked archive)."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        found = [path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file()]
        return [path for path in found if not path.parts[0].startswith(".") and "__pycache__" not in path.parts]
    return [Path(line) for line in listed.splitlines() if (ROOT / line).is_file()]


FILES = tracked_files()
PYTHON = [path for path in FILES if path.suffix == ".py"]


@functools.cache
def read(path: Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(read(path))


def imported_roots(module: ast.Module, package: str) -> set[str]:
    """Top-level names that a module imports anywhere in its text, lazily or not."""
    roots = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add(package if node.level else (node.module or "").split(".")[0])
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
            target = node.args[0]
            if isinstance(target, ast.Constant) and isinstance(target.value, str):
                roots.add(target.value.split(".")[0])
    return roots


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_run_leftwards_only(layer: str) -> None:
    forbidden = {*LAYERS[LAYERS.index(layer) + 1 :], "tests"}
    wrong = [
        f"{path} imports {root}"
        for path in PYTHON
        if path.parts[0] == layer
        for root in imported_roots(tree(path), layer) & forbidden
    ]
    assert not wrong, f"{layer} may import only {LAYERS[: LAYERS.index(layer)]}: {wrong}"


def test_the_import_check_sees_every_kind_of_import() -> None:
    source = """
import bridges.server as s
def late():
    from examples import fork
    importlib.import_module("sanawm_env.env")
from . import sibling
"""
    assert imported_roots(ast.parse(source), "world_model") == {"bridges", "examples", "sanawm_env", "world_model"}


IMPORT_NAMES = {
    "opencv-python-headless": "cv2",
    "pyzmq": "zmq",
    "flash-linear-attention": "fla",
    "stable-baselines3": "stable_baselines3",
}
APART = {"lerobot"}  # no extra can name it, since its pins collide with ours: noxfile.py installs it


def test_every_import_is_a_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    names = {re.split(r"[^\w-]", requirement)[0] for requirement in listed}
    declared = {IMPORT_NAMES.get(name, name) for name in names}
    used = {root: str(path) for path in PYTHON for root in imported_roots(tree(path), path.parts[0])}
    undeclared = used.keys() - declared - set(sys.stdlib_module_names) - {*LAYERS, *APART, "tests"}
    assert not undeclared, {root: used[root] for root in undeclared}


def ceiling(path: Path) -> int:
    if path.parts[0] == "examples":
        return EXAMPLE_CEILING
    return TRITON_CEILING if path.parts[0] == "kernels" and "triton" in path.stem else CEILING


def test_no_file_passes_its_ceiling() -> None:
    lengths = {path: len(read(path).splitlines()) for path in PYTHON}
    too_long = {
        str(path): f"{lines} lines, ceiling {ceiling(path)}" for path, lines in lengths.items() if lines > ceiling(path)
    }
    assert not too_long, too_long


def test_no_function_is_longer_than_a_screen() -> None:
    too_long = [
        f"{path}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1} lines"
        for path in PYTHON
        if path.parts[0] in LAYERS and "triton" not in path.stem
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (node.end_lineno or 0) - node.lineno + 1 > 60
    ]
    assert not too_long, f"functions have a ceiling of 60 lines: {too_long}"


def test_kernels_is_a_namespace_portion() -> None:
    assert Path("kernels/__init__.py") not in FILES, (
        "kernels/__init__.py would overwrite that of another distribution; see pyproject.toml"
    )
    assert any(path.parts[0] == "kernels" for path in PYTHON)


def test_every_other_package_folder_has_an_init() -> None:
    # Without one, setuptools would take the folder for a namespace package and other tools for none at all.
    folders = {path.parent for path in PYTHON if path.parts[0] in LAYERS[:4]} - {Path("kernels")}
    missing = sorted(str(folder) for folder in folders if folder / "__init__.py" not in FILES)
    assert not missing, missing


def test_no_file_is_a_drawer_for_anything() -> None:
    drawers = {"utils", "util", "common", "misc", "helpers"}
    assert not [str(path) for path in FILES if path.stem in drawers or drawers & set(path.parts)]


def test_top_level_holds_only_what_the_design_names() -> None:
    files = {path.name for path in FILES if len(path.parts) == 1 and not path.name.startswith(".")}
    folders = {path.parts[0] for path in FILES if len(path.parts) > 1 and not path.parts[0].startswith(".")}
    assert files <= TOP_FILES, f"unexpected at the top: {sorted(files - TOP_FILES)}"
    assert folders <= TOP_FOLDERS, f"unexpected at the top: {sorted(folders - TOP_FOLDERS)}"


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    # Spelled in halves, so that this file does not accuse itself.
    places = ["/ho" + "me/", "/ro" + "ot/", "/wo" + "rk/", "/Us" + "ers/", "C:" + "\\Users"]
    text = [path for path in FILES if path.suffix in {".py", ".md", ".toml", ".json", ".txt", ".yaml", ""}]
    wrong = [f"{path}: {place}" for path in text for place in places if place in read(path)]
    assert not wrong, wrong


def modules_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after a statement."""
    program = f"import sys; {statement}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


HEAVY = {"torch", "pybullet", "cv2", "av", "zmq", "diffusers", "transformers", "triton", "tyro", "PIL"}


@pytest.mark.parametrize("package", ["sanawm_env", "world_model", "bridges", "world_model.train"])
def test_importing_a_package_loads_nothing_heavy(package: str) -> None:
    assert not modules_after(f"import {package}") & HEAVY


def test_the_command_list_loads_nothing_heavy() -> None:
    assert not modules_after("from sanawm_env.cli import main; main(['--help'])") & HEAVY
