"""The recipes that `make train` and `make gpu-train` start from, and the tool that fits them to a machine."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from world_model.train.__main__ import OBJECTIVES, parse
from world_model.train.flow_model import MODES, FlowRun

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "world_model" / "train" / "recipes"


def configure(recipe: Path, *assignments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", ROOT / ".ci" / "configure.py", recipe, *assignments]
    return subprocess.run(command, capture_output=True, text=True)


def test_every_recipe_is_a_configuration_of_its_objective() -> None:
    recipes = sorted(RECIPES.glob("**/*.json"))
    assert {recipe.parent.name for recipe in recipes} == {"recipes", "tiny"}
    for recipe in recipes:
        module, name = OBJECTIVES["flow" if recipe.stem in (*MODES, "released_lora") else recipe.stem]
        parse(getattr(importlib.import_module(module), name), ["--config", str(recipe)])


def test_values_are_replaced_and_keep_their_kind(tmp_path: Path) -> None:
    done = configure(RECIPES / "flow.json", "run.out=here", "run.batch=3", "data=a/b", "run.lr=2e-4")
    assert done.returncode == 0, done.stderr
    (tmp_path / "flow.json").write_text(done.stdout)
    run = parse(FlowRun, ["--config", str(tmp_path / "flow.json")])
    assert (run.run.out, run.run.batch, run.data, run.run.lr) == ("here", 3, "a/b", 2e-4)
    before = json.loads((RECIPES / "flow.json").read_text())
    assert run.run.warmup == before["run"]["warmup"]


@pytest.mark.parametrize("wrong", ["run.bacth=3", "run", "data.first=1", "run.out.x=1", "nothing.batch=3"])
def test_a_misspelt_setting_is_an_error(wrong: str) -> None:
    done = configure(RECIPES / "flow.json", wrong)
    assert done.returncode == 1
    assert done.stdout == ""
    assert repr(wrong) in done.stderr
