"""Views of training rooms with what an expert would do there: what the clones learn from. Needs PyBullet.

Views are drawn one by one about the way to the goal, near and far, on it and beside it, so that a clone has seen the
places to which its own mistakes lead it.
"""

from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from sanawm_env import se3
from sanawm_env.data import DEFAULT_FOV, SIZE
from sanawm_env.evaluate.privileged import Expert
from sanawm_env.paths import sample_start
from sanawm_env.scenes import Scene, make_scene, scene_seed, stable_hash
from world_model.errors import InputError

NEAREST = 0.75  # metres from the goal's centre: nearer than that every episode has ended
TURN = (0.25, 0.45)  # rad, spread of the view's pitch and yaw about the goal's direction
ASIDE = 0.35  # metres, spread of the place about the straight way to the goal


@dataclass(frozen=True, kw_only=True)
class Views:
    """pictures (N, H, W, 3) uint8 and the expert's actions (N, 6) float32 in them."""

    pictures: np.ndarray
    actions: np.ndarray

    def __post_init__(self) -> None:
        if len(self.pictures) != len(self.actions) or self.actions.shape[1:] != (6,):
            got = self.pictures.shape, self.actions.shape
            raise InputError(f"views: expected N pictures and actions (N, 6), got {got}")

    def __len__(self) -> int:
        return len(self.actions)


def render_views(rooms: int, per_room: int, *, seed: int = 0, size: int = SIZE) -> Views:
    """`per_room` views of each of so many rooms of the training split, the same from the same arguments."""
    pictures, actions = [], []
    for index in tqdm(range(rooms), desc="views", unit="room"):
        scene = make_scene(scene_seed("train", index, seed=seed))
        rng = np.random.default_rng(stable_hash("views", seed, index))
        poses = sample_poses(scene, per_room, rng)
        pictures += draw(scene, poses, size)
        actions += [act(pose, np.array(scene.goal.centre)) for pose in poses]
    return Views(pictures=np.stack(pictures), actions=np.stack(actions).astype(np.float32))


def sample_poses(scene: Scene, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """At most `count` camera poses (4, 4) in room axes, inside the room and outside furniture."""
    space, goal = scene.space(goal=False), np.array(scene.goal.centre)
    poses: list[np.ndarray] = []
    for _ in range(20 * count):
        start = sample_start(scene.space(), goal, DEFAULT_FOV, rng)
        if start is None or len(poses) == count:
            break
        distance = float(np.linalg.norm(goal - start[:3, 3]))
        share = rng.uniform(0, 1 - NEAREST / distance)
        place = start[:3, 3] + share * (goal - start[:3, 3]) + rng.normal(0, ASIDE, 3) * (share > 0.1)
        if space.clearance(place[None])[0] < 0.12 or np.linalg.norm(goal - place) < NEAREST:
            continue
        pose = look_at(place, goal)
        turn = np.concatenate([np.zeros(3), rng.normal(0, (*TURN, 0.05))])
        poses.append(pose @ se3.exp(turn))
    return poses


def look_at(place: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """The pose (4, 4), level, of a camera at a place (3,) that looks at a goal (3,), room axes."""
    ahead = (goal - place) / np.linalg.norm(goal - place)
    right = np.cross(ahead, [0, 0, 1])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = np.stack([right, np.cross(ahead, right), ahead], axis=1), place
    return pose


def act(pose: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """What the expert does at a pose, who turns right where the goal is not in view."""
    return Expert(searching=True)({"pose": pose, "goal": goal})


def draw(scene: Scene, poses: list[np.ndarray], size: int) -> list[np.ndarray]:
    # PyBullet is an extra and prints on import: nothing but drawing may need it.
    from sanawm_env.render import SceneRenderer, pinhole

    with SceneRenderer(scene) as renderer:
        return [renderer.render(pose, pinhole(DEFAULT_FOV, size, size), size, size) for pose in poses]
