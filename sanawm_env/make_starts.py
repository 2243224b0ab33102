"""Render a bank of start scenes: rooms of the test split, which no training has seen, with the goal in view.

    python -m sanawm_env.make_starts --out world_model/assets/nano/starts --count 24

The same from the same options. Needs the extra `bullet` (PyBullet).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sanawm_env.data import SIZE, render_episode
from sanawm_env.places import plan_room
from sanawm_env.starts import Start, write_starts
from world_model.errors import InputError
from world_model.train.data.episode import Episode

DISTANCE = (1.8, 5.0)  # metres from the first camera to a goal that is neither reached at once nor out of reach
MARGIN = 0.06  # of the picture's side: how far inside the centre of the goal must lie
GOAL_RADIUS = 0.45  # metres, of the largest goal: its surface is at most that much nearer than its centre


@dataclass(frozen=True, kw_only=True)
class StartsConfig:
    """Options of `python -m sanawm_env.make_starts`. first: index of the first test room to look at."""

    out: Path
    count: int = 24
    first: int = 0
    size: int = SIZE

    def __post_init__(self) -> None:
        for name, low in (("count", 1), ("first", 0), ("size", 8)):
            if getattr(self, name) < low:
                raise InputError(f"{name}: expected an integer >= {low}, got {getattr(self, name)}")


def make_starts(indices: Iterable[int], size: int = SIZE) -> Iterator[Start]:
    """A start scene of each test room of `indices` whose first frame shows its goal, in order."""
    for index in indices:
        # Two frames are the shortest path that a plan is made for; the first of them is the start.
        episode = render_episode("test", index, kind="random", frames=2, size=size, depth=True)
        if shows_goal(episode):
            _, place = plan_room("test", index)
            yield Start(
                name=f"room-{index:04d}",
                image=episode.frames[0],
                prompt=episode.caption,
                intrinsics=episode.intrinsics[0],
                goal=None if episode.goal is None else episode.goal.astype(np.float64),
                meta={"split": "test", "index": index, "seed": 0, **place.meta()},
            )


def shows_goal(episode: Episode) -> bool:
    """Whether nothing hides the goal's centre in frame 0, by the true depth, and it is at a fair distance."""
    if episode.goal is None or episode.depth is None:
        raise InputError("shows_goal: expected an episode with goal and depth, got one without")
    x, y, z = episode.goal
    fx, fy, cx, cy = episode.intrinsics[0]
    height, width = episode.frames.shape[1:3]
    if z <= 0 or not DISTANCE[0] <= float(np.linalg.norm(episode.goal)) <= DISTANCE[1]:
        return False
    column, row = (fx * x / z + cx) / width, (fy * y / z + cy) / height
    if not (MARGIN < column < 1 - MARGIN and MARGIN < row < 1 - MARGIN):
        return False
    seen = float(episode.depth[0, int(row * height), int(column * width)])
    return bool(z - GOAL_RADIUS <= seen <= z + 0.05)


def main() -> None:
    import tyro

    config = tyro.cli(StartsConfig, prog="python -m sanawm_env.make_starts", description=__doc__)
    starts = []
    with tqdm(total=config.count, desc="start scenes", unit="scene") as bar:
        for start in make_starts(count(config.first), config.size):
            starts.append(start)
            bar.update()
            if len(starts) == config.count:
                break
    write_starts(config.out, starts)
    print(f"{len(starts)} start scenes: {config.out}")


if __name__ == "__main__":
    main()
