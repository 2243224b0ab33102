"""Tasks: what an agent is paid for, and when an episode ends. One class a task, without state of its own.

A task sees where the camera is and where the goal is, never the picture: these are privileged, and an agent that
reads pixels gets them through the reward only. Poses are camera-to-world (4, 4) relative to the start frame,
metres, OpenCV axes; a goal is a position (3,) in the start camera's axes.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from world_model.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a task says of one step. is_success: of the pose that the step ended at."""

    reward: float
    terminated: bool
    is_success: bool


@runtime_checkable
class Task(Protocol):
    """What the environment asks of a task. Functions of their arguments alone: worlds may be forked and restored."""

    needs_goal: bool

    def is_success(self, goal: np.ndarray | None, pose: np.ndarray) -> bool: ...

    def judge(self, goal: np.ndarray | None, before: np.ndarray, after: np.ndarray) -> Verdict: ...


@dataclass(frozen=True, kw_only=True)
class Reach:
    """Come within `radius` metres of the goal.

    Reward of a step: by how many metres the distance to the goal shrank, so that an episode's sum does not depend on
    detours, plus `bonus` for the step that arrives, which ends the episode.
    """

    radius: float = 0.8
    bonus: float = 1.0
    needs_goal = True

    def __post_init__(self) -> None:
        if not 0 < self.radius < np.inf:
            raise InputError(f"radius: expected a positive number of metres, got {self.radius}")
        if not 0 <= self.bonus < np.inf:
            raise InputError(f"bonus: expected a number >= 0, got {self.bonus}")

    def is_success(self, goal: np.ndarray | None, pose: np.ndarray) -> bool:
        return self.distance(goal, pose) <= self.radius

    def judge(self, goal: np.ndarray | None, before: np.ndarray, after: np.ndarray) -> Verdict:
        arrived = self.is_success(goal, after)
        progress = self.distance(goal, before) - self.distance(goal, after)
        return Verdict(reward=progress + self.bonus * arrived, terminated=arrived, is_success=arrived)

    def distance(self, goal: np.ndarray | None, pose: np.ndarray) -> float:
        """Metres from the camera to the goal."""
        if goal is None:
            raise InputError("task 'reach': expected a goal (3,), got none")
        return float(np.linalg.norm(goal - pose[:3, 3]))


@dataclass(frozen=True)
class NoTask:
    """Fly about: no reward, no success, no end but the time limit."""

    needs_goal = False

    def is_success(self, goal: np.ndarray | None, pose: np.ndarray) -> bool:
        return False

    def judge(self, goal: np.ndarray | None, before: np.ndarray, after: np.ndarray) -> Verdict:
        return Verdict(reward=0.0, terminated=False, is_success=False)


TASKS: dict[str, type[Reach] | type[NoTask]] = {"reach": Reach, "none": NoTask}


def make_task(task: str | Task) -> Task:
    """A task by name, or the user's own as it is. Raises InputError."""
    if isinstance(task, str) and task in TASKS:
        return TASKS[task]()
    if isinstance(task, str | type) or not isinstance(task, Task):
        raise InputError(
            f"task: expected one of {sorted(TASKS)} or an object with needs_goal, is_success and judge, got {task!r}"
        )
    return task
