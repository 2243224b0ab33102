"""The pages in docs/envs say what the code does: ids, arguments, defaults, options, observations."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from sanawm_env.controls import Twist
from sanawm_env.registration import MAX_EPISODE_STEPS, TASK_IDS
from sanawm_env.tasks import Aimed, Shown, make_task
from world_model.presets import nano

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {
    "SanaWM-Reach-v0": "reach",
    "SanaWM-ImageGoal-v0": "image_goal",
    "SanaWM-Explore-v0": "explore",
    "SanaWM-TrackPath-v0": "track_path",
    "SanaWM-Free-v0": "free",
}
HEADINGS = ["Action", "Observation", "Reward", "Start", "Episode end", "Arguments", "Versions"]


def test_every_id_has_a_page_that_env_md_links() -> None:
    assert PAGES.keys() == TASK_IDS.keys()
    assert {path.stem for path in (DOCS / "envs").glob("*.md")} == set(PAGES.values())
    for name, page in PAGES.items():
        assert f"[{name}](envs/{page}.md)" in (DOCS / "env.md").read_text()


def is_default(text: str, value: Any) -> bool:
    """Whether a table states a default: angles in degrees, the rest as it is."""
    if text.startswith("radians of "):
        return bool(np.isclose(np.radians(float(text.removeprefix("radians of "))), value))
    return text == str(value)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_true(name: str) -> None:
    page = (DOCS / "envs" / f"{PAGES[name]}.md").read_text()
    given, task = TASK_IDS[name], make_task(TASK_IDS[name]["task"])
    assert page.startswith(f"# {name}\n")
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == HEADINGS
    assert gym.spec(name).kwargs == given
    assert gym.spec(name).max_episode_steps == MAX_EPISODE_STEPS
    assert f"at most {MAX_EPISODE_STEPS} steps" in page
    assert f'task="{given["task"]}"`: `sanawm_env.tasks.{type(task).__name__}`' in page
    assert f'`obs="{given["obs"]}"`, the default' in page if "obs" in given else '"rgb" is the default' in page
    for index, limit in enumerate(Twist().scale):
        value = f"{limit:.1f} m/s" if index < 3 else f"{np.degrees(limit):.0f} deg/s"
        assert re.search(rf"^\| {index} \| .*{value}", page, re.MULTILINE)
    arguments = page.split("## Arguments")[1]
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", arguments, re.MULTILINE))
    fields = {field.name: getattr(task, field.name) for field in dataclasses.fields(task)}
    assert rows.keys() == fields.keys()
    assert all(is_default(rows[argument], fields[argument]) for argument in fields), (rows, fields)
    for option in task.options if isinstance(task, Aimed) else ():
        assert f"| `{option}` |" in page
    for shown in task.spaces(nano()) if isinstance(task, Shown) else ():
        assert f"`{shown}`" in page.split("## Reward")[0]


@pytest.mark.parametrize("name", PAGES)
def test_the_docstring_of_a_task_names_its_arguments(name: str) -> None:
    task = make_task(TASK_IDS[name]["task"])
    text = type(task).__doc__ or ""
    missing = [field.name for field in dataclasses.fields(task) if f"`{field.name}" not in text]
    assert not missing, missing
