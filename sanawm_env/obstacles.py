"""What a camera can touch in a room: distances to its walls and to every part of its furniture, and how it slides.

Pure numpy. Positions are in room axes, metres; P points. Boxes and cylinders are exact; spheres and cones of furniture
stand in the cylinders around them. Windows, doorways and pictures are as solid as their wall.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sanawm_env.scenes import Scene
from sanawm_env.styles import GOAL_SHAPES

RADIUS = 0.12  # metres: of the ball that is the camera's body; its near plane is at 0.1
STRIDE = 0.04  # metres between the places of a path that are looked at, so that nothing thin is jumped over
TRIES = 8  # times that a camera is pushed out of what it has entered, before it stays where it was


@dataclass(frozen=True, kw_only=True)
class Obstacles:
    """size (3,) of the room; centre, half (n, 3) of its things; is_round (n,): upright cylinders, not boxes."""

    size: np.ndarray
    centre: np.ndarray
    half: np.ndarray
    is_round: np.ndarray

    @classmethod
    def of(cls, scene: Scene) -> "Obstacles":
        """The room, its furniture part by part, and the goal."""
        things = [(part.shape, part.centre, part.size) for piece in scene.furniture for part in piece.parts]
        things.append((GOAL_SHAPES[scene.goal.name], scene.goal.centre, scene.goal.size))
        return cls(
            size=np.array(scene.size),
            centre=np.array([centre for _, centre, _ in things]),
            half=np.array([size for *_, size in things]) / 2,
            is_round=np.array([shape != "box" for shape, *_ in things]),
        )

    def clearance(self, points: np.ndarray) -> np.ndarray:
        """Metres (P,) from points (P, 3) to the nearest surface; below 0 inside of something."""
        walls = np.minimum(points, self.size - points).min(axis=1)
        offset = np.abs(points[:, None] - self.centre)  # (P, n, 3)
        gap = offset - self.half
        radial = np.linalg.norm(offset[..., :2], axis=-1) - self.half[:, 0]
        flat = np.stack([radial, np.full_like(radial, -np.inf)], axis=-1)
        gap[..., :2] = np.where(self.is_round[:, None], flat, gap[..., :2])
        outside = np.linalg.norm(np.maximum(gap, 0), axis=-1)
        inside = np.minimum(gap.max(axis=-1), 0)
        return np.minimum(walls, (outside + inside).min(axis=1))

    def touched(self, path: np.ndarray) -> bool:
        """Whether a camera that goes straight from each position of a path (P, 3) to the next touches something."""
        return bool((self.clearance(np.concatenate([path[:1], *segments(path)])) <= RADIUS).any())

    def slide(self, path: np.ndarray) -> tuple[np.ndarray, bool]:
        """A path (P, 3) as far as a solid camera follows it, and whether it touched something.

        It begins where the path does. Each move is cut into strides; one that enters something is pushed out along the
        steepest way, or not made. A camera that begins too close may only move away.
        """
        place, reached, touched = path[0], [path[0]], False
        for before, points in zip(path[:-1], segments(path), strict=True):
            for move in np.diff(np.concatenate([before[None], points]), axis=0):
                place, hit = self._move(place, move)
                touched |= hit
            reached.append(place)
        return np.stack(reached), touched

    def _move(self, place: np.ndarray, move: np.ndarray) -> tuple[np.ndarray, bool]:
        """One stride (3,) from a place (3,)."""
        least = min(RADIUS, float(self.clearance(place[None])[0]))
        aim = place + move
        hit = False
        for _ in range(TRIES):
            lacking = least - float(self.clearance(aim[None])[0])
            if lacking <= 1e-9:
                return aim, hit
            hit = True
            aim = aim + (lacking + 1e-6) * self._away(aim)
        return place, True

    def _away(self, place: np.ndarray) -> np.ndarray:
        """The direction (3,) in which clearance grows fastest."""
        around = 1e-4 * np.concatenate([np.eye(3), -np.eye(3)])
        up, down = self.clearance(place + around).reshape(2, 3)
        slope = up - down
        return slope / max(float(np.linalg.norm(slope)), 1e-12)


def segments(path: np.ndarray) -> list[np.ndarray]:
    """Of each move of a path (P, 3) the places (k, 3) at most `STRIDE` apart on its way, its end included."""
    found = []
    for start, end in pairwise(path):
        count = max(1, int(np.ceil(np.linalg.norm(end - start) / STRIDE)))
        found.append(start + np.linspace(0, 1, count + 1)[1:, None] * (end - start))
    return found
