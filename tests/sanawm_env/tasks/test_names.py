"""Tasks by name and by object, and what a task may note."""

from collections.abc import Callable

import numpy as np
import pytest

from sanawm_env.tasks import (
    TASKS,
    Explore,
    ImageGoal,
    NoTask,
    Reach,
    TrackPath,
    Verdict,
    make_task,
    notes_of,
)
from world_model.errors import InputError, StateError


def test_tasks_by_name_and_by_object() -> None:
    kinds = [Reach, ImageGoal, Explore, TrackPath, NoTask]
    assert [type(make_task(name)) for name in TASKS] == kinds
    mine = Reach(radius=0.3)
    assert make_task(mine) is mine
    with pytest.raises(InputError, match=r"expected one of .* or an object with needs_goal, begin and judge, got 3"):
        make_task(3)  # pyright: ignore[reportArgumentType]


def test_notes_are_arrays_of_numbers() -> None:
    verdict = Verdict(reward=0, terminated=False, is_success=False, notes={"seen": np.zeros(3, bool)})
    assert verdict.notes["seen"].shape == (3,)
    for note in (3, np.array(["a"]), [1, 2]):
        with pytest.raises(InputError, match="notes: expected arrays of numbers or booleans, got seen="):
            Verdict(reward=0, terminated=False, is_success=False, notes={"seen": note})  # pyright: ignore


def test_notes_of_another_task(at: Callable) -> None:
    with pytest.raises(StateError, match=r"with notes \['seen'\], got one with \[\]; call reset first"):
        notes_of(at(0, 0, 0), "seen")
