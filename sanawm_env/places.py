"""From a start scene back to the room that it shows: which room, and where in it the camera stands.

A start of a rendered room keeps both in its `meta`, format of `WORLD` (the version of what a seed's room looks like):

    world, scene_seed    the room: `make_scene(int(scene_seed))`
    pose                 (4, 4) camera-to-world of the start frame in room axes, metres
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sanawm_env.data import EpisodePlan, plan_episode
from sanawm_env.scenes import WORLD
from sanawm_env.starts import Start
from world_model.errors import InputError

ROOM_OPTIONS = ("index", "seed", "split")


@dataclass(frozen=True, kw_only=True)
class Place:
    """A camera pose (4, 4) float64, camera-to-world in the axes of the room of a seed."""

    scene_seed: int
    pose: np.ndarray

    def meta(self) -> dict[str, Any]:
        """What `place_of` reads, as JSON holds it exactly."""
        return {"world": WORLD, "scene_seed": str(self.scene_seed), "pose": self.pose.tolist()}


def place_of(start: Start) -> Place:
    """Where a start was rendered. Raises InputError for a picture of no room, or of another version's room."""
    missing = sorted({"world", "scene_seed", "pose"} - set(start.meta))
    if missing:
        raise InputError(
            f"scene {start.name!r}: expected one that leads back to its room, got one whose meta lacks {missing}; "
            f"banks of today's version are written by python -m sanawm_env.make_starts"
        )
    if start.meta["world"] != WORLD:
        raise InputError(f"scene {start.name!r}: expected a room of version {WORLD}, got {start.meta['world']}")
    return Place(scene_seed=int(start.meta["scene_seed"]), pose=np.array(start.meta["pose"], np.float64))


def plan_room(split: str, index: int, seed: int = 0) -> tuple[EpisodePlan, Place]:
    """The room of (split, index, seed) and where a start in it stands: as `sanawm data` has it, on a random path."""
    # Two frames are the shortest path that a plan is made for; the first of them is the start.
    plan = plan_episode(split, index, seed=seed, kind="random", frames=2)
    return plan, Place(scene_seed=plan.scene.seed, pose=plan.c2w[0])


def read_room(room: Any) -> tuple[str, int, int]:
    """Split, index and seed that `options["room"]` names. Raises InputError."""
    if not isinstance(room, Mapping) or "index" not in room or not set(room) <= set(ROOM_OPTIONS):
        raise InputError(f"room: expected a mapping with 'index', and maybe 'split' and 'seed', got {room!r}")
    split, index, seed = room.get("split", "test"), room["index"], room.get("seed", 0)
    for name, value in (("index", index), ("seed", seed)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
            raise InputError(f"room: {name}: expected an integer >= 0, got {value!r}")
    return split, int(index), int(seed)
