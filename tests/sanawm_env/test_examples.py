"""The examples run, each as the program that it is."""

import ast
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))
SHORT = {
    "random_agent": ["--steps", "2"],
    "fly_keys": ["--keys", "w-5,dw-4", "--out", "{out}/keys.mp4"],
    "fork_futures": ["--steps", "2", "--out", "{out}/fork.png"],
    "beside_twin": ["--room", "1", "--out", "{out}/twin.png"],
    "own_task": ["--steps", "2"],
    "plan": ["--episodes", "2", "--steps", "3", "--candidates", "3", "--horizon", "2"],
}
SAYS = {
    "random_agent": ["scene-", "step 1: frames 5-8, camera at"],
    "fly_keys": ["13 frames of scene-0"],
    "fork_futures": ["0.00 s after the fork: 0.0 of 255 apart", "0.50 s after the fork"],
    "own_task": ["step 1: 11.25 degrees, success: False"],
    "plan": ["episode 1: return ", "plan: return ", "of 2 reached"],
    "beside_twin": ["0.25 s: ", "2.00 s: ", "twin above, world model below"],
}


def test_every_example_is_run_here() -> None:
    assert {path.stem for path in EXAMPLES} == set(SHORT) == set(SAYS)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(
    path: Path,
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [text.format(out=tmp_path) for text in SHORT[path.stem]]
    monkeypatch.setattr(sys, "argv", [str(path), "--model", str(model_folder), *arguments])
    runpy.run_path(str(path), run_name="__main__")
    printed = capsys.readouterr().out
    for text in SAYS[path.stem]:
        assert text in printed
    for written in (text for text in arguments if text.startswith(str(tmp_path))):
        assert Path(written).stat().st_size > 300


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_a_short_script_of_public_parts(path: Path) -> None:
    tree = ast.parse(path.read_text())
    classes = [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    assert classes == (["TurnAround"] if path.stem == "own_task" else [])  # a task is a class: that one is its subject
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    allowed = {"sanawm_env", "world_model", "gymnasium", "numpy", "tyro", "pathlib"}
    assert {name.split(".")[0] for name in names} <= allowed
    assert f"python examples/{path.name}" in (ast.get_docstring(tree) or "")
