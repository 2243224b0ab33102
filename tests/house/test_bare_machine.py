"""Training and measuring run where only torch, numpy, safetensors, tqdm and OpenCV are installed.

Each case is a fresh interpreter in which every other package is blocked as if it were absent. What torch
itself requires is let through.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = {"kernels", "world_model"}
INSTALLED = {"torch", "numpy", "safetensors", "tqdm", "cv2"}
BROUGHT_BY_TORCH = {
    "filelock",
    "fsspec",
    "functorch",
    "jinja2",
    "markupsafe",
    "mpmath",
    "networkx",
    "setuptools",
    "sympy",
    "torchgen",
    "typing_extensions",
}
GATE = f"""
import sys
allowed = set(sys.stdlib_module_names) | set({sorted(OURS | INSTALLED | BROUGHT_BY_TORCH)})
class Gate:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ModuleNotFoundError(f"No module named {{name!r}} (blocked by the test)", name=name)
sys.meta_path.insert(0, Gate())
"""


def bare_python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", GATE + program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def module_names() -> list[str]:
    """Every module of ours but the Triton kernels, which need a GPU's Python, and the programs' own mains."""
    files = [path.relative_to(ROOT) for folder in sorted(OURS) for path in (ROOT / folder).rglob("*.py")]
    kept = [path for path in files if "triton" not in path.stem and path.stem != "__main__"]
    return sorted(".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in kept)


def test_the_gate_blocks_what_a_bare_machine_lacks() -> None:
    for name in ("gymnasium", "tyro", "av", "pybullet", "sanawm_env", "pytest"):
        done = bare_python(f"import {name}")
        assert done.returncode != 0
        assert "blocked by the test" in done.stderr


def test_every_module_imports() -> None:
    program = f"""
import importlib, json
failed = {{}}
for name in {module_names()}:
    try:
        importlib.import_module(name)
    except ImportError as error:
        failed[name] = repr(error)
print(json.dumps(failed))
"""
    done = bare_python(program)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {}


@pytest.mark.parametrize("module", ["world_model.train", "world_model.bench"])
def test_help_of_the_programs(module: str) -> None:
    done = bare_python(
        f"import runpy; sys.argv = ['prog', '--help']; "
        f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    )
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()
