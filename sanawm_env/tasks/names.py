"""The tasks that are known by name."""

from collections.abc import Callable

from sanawm_env.tasks.explore import Explore
from sanawm_env.tasks.free import NoTask
from sanawm_env.tasks.image_goal import ImageGoal
from sanawm_env.tasks.reach import Reach
from sanawm_env.tasks.task import Task
from sanawm_env.tasks.track_path import TrackPath
from world_model.errors import InputError

TASKS: dict[str, Callable[[], Task]] = {
    "reach": Reach,
    "image-goal": ImageGoal,
    "explore": Explore,
    "track-path": TrackPath,
    "none": NoTask,
}


def make_task(task: str | Task) -> Task:
    """A task by name, or the user's own as it is. Raises InputError."""
    if isinstance(task, str) and task in TASKS:
        return TASKS[task]()
    if isinstance(task, str | type) or not isinstance(task, Task):
        raise InputError(
            f"task: expected one of {sorted(TASKS)} or an object with needs_goal, begin and judge, got {task!r}"
        )
    return task
