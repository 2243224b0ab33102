"""Render goal views for a bank of rendered rooms: what a robot on wheels sees further on from the start.

    python -m sanawm_env.make_goals --bank world_model/assets/nano/starts --views 2

The same from the same options. Needs the extra `bullet` (PyBullet).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sanawm_env.data import FPS
from sanawm_env.goal_views import GoalView, write_goal_views
from sanawm_env.paths import allowed, integrate, plan
from sanawm_env.places import place_of
from sanawm_env.scenes import Scene, make_scene, stable_hash
from sanawm_env.starts import Start, read_starts
from sanawm_env.tasks.poses import apart
from world_model.errors import InputError

FRAMES = 97  # six seconds of flight, a third of an episode
FARTHER = 0.8  # metres: a goal is at least that far from the start ...
TURNED = np.radians(90)  # ... and looks at most that far away from where the start looks
AHEAD = 1.2  # metres: a view shows more than the wall before it
ATTEMPTS = 200


@dataclass(frozen=True, kw_only=True)
class GoalsConfig:
    """Options of `python -m sanawm_env.make_goals`. bank: folder of the bank, which gets one more file."""

    bank: Path
    views: int = 2

    def __post_init__(self) -> None:
        if self.views < 1:
            raise InputError(f"views: expected an integer >= 1, got {self.views}")


def goal_pose(scene: Scene, start: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A pose (4, 4) relative to the start (4, 4, room axes), at the end of a drive that touches nothing.

    Raises InputError if none of many paths ends far enough from the start.
    """
    space = scene.space()
    for _ in range(ATTEMPTS):
        path = integrate(start, plan(space, start, "drive", FRAMES, FPS, rng), FPS)
        metres, radians = apart(path[0], path[-1])
        ahead = path[-1, :3, 3] + np.linspace(0, AHEAD, 7)[:, None] * path[-1, :3, 2]
        is_open = (space.clearance(ahead) > 0).all()
        if is_open and allowed(space, path) and metres >= FARTHER and radians <= TURNED:
            return np.linalg.inv(start) @ path[-1]
    raise InputError(f"goal views: expected a free path that ends {FARTHER} m away, got none in {ATTEMPTS} attempts")


def make_goals(start: Start, views: int) -> tuple[GoalView, ...]:
    """Goal views of one start scene. Raises InputError for a start that leads to no room."""
    # PyBullet is an extra and prints on import: nothing but drawing may need it.
    from sanawm_env.render import SceneRenderer

    place = place_of(start)
    scene = make_scene(place.scene_seed)
    if start.intrinsics is None:
        raise InputError(f"{start.name}: expected a start with intrinsics, got none")
    rng = np.random.default_rng(stable_hash("goals", place.scene_seed))
    poses = [goal_pose(scene, place.pose, rng) for _ in range(views)]
    height, width = start.image.shape[:2]
    lens = start.intrinsics.astype(np.float64)
    with SceneRenderer(scene) as renderer:
        return tuple(
            GoalView(image=renderer.render(place.pose @ pose, lens, width, height), pose=pose) for pose in poses
        )


def main() -> None:
    import tyro

    config = tyro.cli(GoalsConfig, prog="python -m sanawm_env.make_goals", description=__doc__)
    starts = read_starts(config.bank)
    views = [make_goals(start, config.views) for start in tqdm(starts, desc="goal views", unit="scene")]
    write_goal_views(config.bank, views)
    print(f"{config.views} goal views of {len(starts)} start scenes: {config.bank}")


if __name__ == "__main__":
    main()
