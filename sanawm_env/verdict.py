"""What a task says of a step: pay, end, success, and all that the task wants to remember."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from world_model.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Of one step, or of the start frame, whose reward nobody gets.

    is_success: of the pose that the step ended at. truncated: the task ends the episode without judging its end, as a
    time limit does. notes: what the task remembers until the next step, numbers or booleans by name. They are part of
    snapshots, on disk too, and are never written again: a new verdict holds new ones, or the same.

    Raises InputError for a reward that is no finite number, and for notes that are no arrays of numbers.
    """

    reward: float
    terminated: bool
    is_success: bool
    truncated: bool = False
    notes: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not np.isfinite(self.reward):
            raise InputError(f"reward: expected a finite number, got {self.reward}")
        for name, note in self.notes.items():
            if not isinstance(note, np.ndarray) or note.dtype.kind not in "biuf":
                raise InputError(f"notes: expected arrays of numbers or booleans, got {name}={note!r}")
