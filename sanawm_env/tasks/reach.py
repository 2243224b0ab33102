"""Reach: come near a goal whose place is known."""

from dataclasses import dataclass

import numpy as np

from sanawm_env.episode import Episode
from sanawm_env.verdict import Verdict
from world_model.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Reach:
    """Come within `radius` metres of the goal.

    Reward of a step: by how many metres the distance to the goal shrank, so that an episode's sum does not depend on
    detours, plus `bonus` for the step that arrives. Success: within the radius, which ends the episode.
    """

    radius: float = 0.8
    bonus: float = 1.0
    needs_goal = True

    def __post_init__(self) -> None:
        if not 0 < self.radius < np.inf:
            raise InputError(f"radius: expected a positive number of metres, got {self.radius}")
        if not 0 <= self.bonus < np.inf:
            raise InputError(f"bonus: expected a number >= 0, got {self.bonus}")

    def begin(self, episode: Episode) -> Verdict:
        return Verdict(reward=0.0, terminated=False, is_success=self.distance(episode) <= self.radius)

    def judge(self, before: Episode, after: Episode) -> Verdict:
        arrived = self.distance(after) <= self.radius
        progress = self.distance(before) - self.distance(after)
        return Verdict(reward=progress + self.bonus * arrived, terminated=arrived, is_success=arrived)

    def distance(self, episode: Episode) -> float:
        """Metres from the camera to the goal."""
        if episode.goal is None:
            raise InputError("task 'reach': expected a goal (3,), got none")
        return float(np.linalg.norm(episode.goal - episode.pose[:3, 3]))
