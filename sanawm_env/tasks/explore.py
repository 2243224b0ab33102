"""Explore: see the place from as many viewpoints as there is time for."""

import math
from dataclasses import dataclass

import numpy as np

from sanawm_env.episode import Episode
from sanawm_env.tasks.poses import check_positive
from sanawm_env.tasks.task import notes_of
from sanawm_env.verdict import Verdict
from world_model.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Explore:
    """Visit viewpoints: cells of `cell` x `cell` metres on the ground, times `headings` sectors of the view's heading.

    A step pays 1 if it ends in a cell that the episode has not been to, else 0; the start's cell counts as visited.
    Cells whose centre is further than `extent` metres from the start, along either axis, pay nothing: a generated
    world has no walls, and beyond a room there is nothing to see. Success: `enough` cells, which ends the episode.
    Height, pitch and roll do not matter. Observations show nothing of it: to know where it has been, an agent must
    remember.
    """

    cell: float = 0.5
    headings: int = 8
    extent: float = 3.0
    enough: int = 32
    needs_goal = False

    def __post_init__(self) -> None:
        check_positive(cell=self.cell, extent=self.extent)
        for name, low in (("headings", 1), ("enough", 2)):
            if getattr(self, name) < low:
                raise InputError(f"{name}: expected an integer >= {low}, got {getattr(self, name)}")
        if self.enough > math.prod(self.shape):
            raise InputError(f"enough: expected at most all {math.prod(self.shape)} cells, got {self.enough}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Cells along x and z, and sectors; the start lies in the middle cell, and looks to sector 0."""
        side = 1 + 2 * int(self.extent / self.cell)
        return side, side, self.headings

    def begin(self, episode: Episode) -> Verdict:
        return self._visit(episode, np.zeros(self.shape, np.bool_))

    def judge(self, before: Episode, after: Episode) -> Verdict:
        return self._visit(after, notes_of(before, "visited")["visited"])

    def cell_of(self, pose: np.ndarray) -> tuple[int, int, int] | None:
        """The cell of a pose (4, 4), None beyond the extent."""
        half = self.shape[0] // 2
        x, z = (math.floor(pose[axis, 3] / self.cell + 0.5) + half for axis in (0, 2))
        if not (0 <= x <= 2 * half and 0 <= z <= 2 * half):
            return None
        yaw = math.atan2(pose[0, 2], pose[2, 2])
        return x, z, math.floor(yaw / (2 * math.pi) * self.headings + 0.5) % self.headings

    def _visit(self, episode: Episode, visited: np.ndarray) -> Verdict:
        cell = self.cell_of(episode.pose)
        is_new = cell is not None and not visited[cell]
        if is_new:
            visited = visited.copy()
            visited[cell] = True
        done = int(visited.sum()) >= self.enough
        notes = {"visited": visited}
        return Verdict(reward=float(is_new and episode.steps > 0), terminated=done, is_success=done, notes=notes)
