"""Flights along the same commands in several worlds, to measure how well each obeys its camera's commands.

The scenes' true depth is drawn anew from the bank's notes on where each start scene comes from (extra `bullet`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
from tqdm import tqdm

from sanawm_env.actions import MAX_SPEED, MAX_TURN, integrate_twist
from sanawm_env.evaluate.arenas import Arenas
from sanawm_env.evaluate.camera import CameraError, camera_error, recover_motion
from sanawm_env.paths import scripted
from sanawm_env.places import place_of
from sanawm_env.scenes import make_scene
from sanawm_env.starts import Start

PATHS = ("yaw", "pitch", "forward", "strafe", "random")
STEPS = 8  # of a flight: two seconds of nano


@dataclass(frozen=True, kw_only=True)
class Flight:
    """frames (T, H, W, 3) uint8; twists (T - 1, 6) as commanded, m/s and rad/s; intrinsics (4,); poses (T, 4, 4)."""

    frames: np.ndarray
    twists: np.ndarray
    intrinsics: np.ndarray
    poses: np.ndarray


def camera_errors(arenas: Arenas, worlds: Sequence[str], scenes: int) -> dict[str, dict[str, CameraError]]:
    """Of each world and each kind of path, over the first scenes of the bank; the twin's is the extractor's own."""
    twists = {world: {kind: ([], []) for kind in PATHS} for world in worlds}
    starts = [start for start in arenas.bank if start.goal is not None][:scenes]
    with tqdm(total=len(worlds) * len(starts) * len(PATHS), desc="camera", unit="flight") as bar:
        for world in worlds:
            env = arenas.make_one(world)
            fps = arenas.config.fps
            for number, start in enumerate(starts):
                for kind in PATHS:
                    flight = fly(env, start.name, commands(kind, number, arenas.config.frames_per_step, fps), fps)
                    depth = true_depth(start, flight)
                    recovered, commanded = twists[world][kind]
                    recovered.append(recover_motion(flight.frames, depth, flight.intrinsics, fps))
                    commanded.append(flight.twists)
                    bar.update()
            env.close()
    return {
        world: {kind: camera_error(*(np.concatenate(each) for each in both)) for kind, both in kinds.items()}
        for world, kinds in twists.items()
    }


def commands(kind: str, seed: int, frames: int, fps: float) -> np.ndarray:
    """Actions (STEPS, 6) float32 of a kind of path; "random" is what a random agent does, at half its strength."""
    rng = np.random.default_rng(seed)
    if kind == "random":
        return rng.uniform(-0.5, 0.5, (STEPS, 6)).astype(np.float32)
    twists = scripted(kind, STEPS * frames + 1, fps, rng)[::frames]  # constant within a step
    return (twists / np.array([*MAX_SPEED, *MAX_TURN])).astype(np.float32)


def fly(env: gym.Env, scene: str, actions: np.ndarray, fps: float) -> Flight:
    """One flight; the environment must tell all frames of a step."""
    start, info = env.reset(seed=0, options={"scene": scene})
    frames, twists, poses = [start[None]], [], [np.eye(4)]
    for action in actions:
        before, info = poses[-1], env.step(action)[-1]
        frames.append(info["frames"])
        count = len(info["frames"])
        twists.append(np.tile(info["velocity"], (count, 1)))  # held for the whole step
        poses += list(integrate_twist(before, info["velocity"], count, fps))
    return Flight(
        frames=np.concatenate(frames),
        twists=np.concatenate(twists),
        intrinsics=info["intrinsics"],
        poses=np.stack(poses),
    )


def true_depth(start: Start, flight: Flight) -> np.ndarray:
    """Depth (T, H, W) float32 metres of the rendered room along a flight. Raises InputError for a scene of no room."""
    # PyBullet is an extra and prints on import: nothing but drawing may need it.
    from sanawm_env.render import SceneRenderer

    place = place_of(start)
    height, width = flight.frames.shape[1:3]
    lens = flight.intrinsics.astype(np.float64)
    with SceneRenderer(make_scene(place.scene_seed)) as renderer:
        return np.stack([renderer.depth(place.pose @ pose, lens, width, height)[0] for pose in flight.poses])
