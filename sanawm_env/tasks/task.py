"""What the environment asks of a task, and what a task may offer beside.

A task is a value without state of its own: what it wants to remember from step to step it writes into the verdict's
notes, which are part of the episode, so that worlds may be kept, forked, written to disk and stepped in batches.
"""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import gymnasium as gym
import numpy as np

from sanawm_env.episode import Episode
from sanawm_env.verdict import Verdict
from world_model.config import WorldConfig
from world_model.errors import StateError


@runtime_checkable
class Task(Protocol):
    """What an agent is paid for, and when an episode ends. Functions of their arguments alone.

    needs_goal: whether episodes must have a goal (3,), which "dict" observations then show.
    """

    needs_goal: bool

    def begin(self, episode: Episode) -> Verdict:
        """The verdict of the start frame, with the first notes. `episode.aims` holds what `options` asked for.

        Raises InputError for aims that the task cannot use.
        """
        ...

    def judge(self, before: Episode, after: Episode) -> Verdict:
        """The verdict of one step. `after` still holds the verdict of `before`, notes included."""
        ...


@runtime_checkable
class Aimed(Protocol):
    """A task that reads options of `reset`, which arrive in `episode.aims` of `begin` as arrays.

    options: their names; what the scene has under such a name (`goal_image` with `goal_pose`) stands in where the
    user gave none of them. pictures: those that are pictures (h, w, 3) uint8: they arrive as (H, W, 3) of the frame's
    size, and where the engine has latents, with `<name>_latent` (C, Y, X) float32 beside them.
    """

    options: tuple[str, ...]
    pictures: tuple[str, ...]


@runtime_checkable
class Shown(Protocol):
    """A task that adds to observations that are a Dict: to "dict" all, to "pictures" what is a picture."""

    def spaces(self, config: WorldConfig) -> dict[str, gym.Space]:
        """What is added, by name. A picture is a Box (h, w, 3) uint8."""
        ...

    def show(self, episode: Episode) -> dict[str, np.ndarray]:
        """An element of each of these spaces, fresh arrays."""
        ...


def notes_of(episode: Episode, *names: str) -> Mapping[str, np.ndarray]:
    """The notes of an episode. Raises StateError if some are missing: another task has begun it."""
    notes = episode.verdict.notes
    if not set(names) <= set(notes):
        raise StateError(
            f"expected an episode that this task has begun, with notes {sorted(names)}, got one with "
            f"{sorted(notes)}; call reset first"
        )
    return notes
