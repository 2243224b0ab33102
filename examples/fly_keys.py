"""Fly a keyboard action string through a start scene: python examples/fly_keys.py --keys "w-32,dw-24,d-24" """

from pathlib import Path

import numpy as np
import tyro

from sanawm_env.film import enlarge, write_film
from sanawm_env.keys import parse_action_string
from sanawm_env.models import shared_model
from sanawm_env.starts import find_bank
from world_model import checkpoint


def main(
    keys: str = "w-32,dw-24,d-24,none-16,a-48",
    version: str = "v2",
    model: str = "nano",
    scene: int = 0,
    seed: int = 0,
    out: Path = Path("runs/fly_keys.mp4"),
) -> None:
    """Write a video of the flight.

    Args:
        keys: which keys are held for how many frames.
        version: v2: w s ahead and back, j l aside, a d turn, i k tilt. v1 swaps a d with j l, and is faster.
        model: a shipped model by name, or a folder.
        scene: index in the bank of start scenes.
        seed: of the world's noise.
        out: the video.
    """
    world_model = shared_model(model)
    frames_per_step = world_model.config.frames_per_step
    path = parse_action_string(keys, version)[1:]  # the first pose is the start frame's
    rest = -len(path) % frames_per_step
    path = np.concatenate([path, np.repeat(path[-1:], rest, axis=0)])  # the last step ends standing still

    start = find_bank(None, checkpoint.find(model))[scene]
    world, frames = world_model.reset([start.image], [start.prompt], start.intrinsics, [seed])
    film = [frames]
    for poses in np.split(path, len(path) // frames_per_step):
        world, frames = world_model.step(world, poses[None])  # (1, F, 4, 4) -> (1, F, H, W, 3)
        film.append(frames)

    pixels = np.concatenate([part[0].numpy() for part in film])
    write_film(out, enlarge(pixels, 3), world_model.config.fps)
    print(f"{len(pixels)} frames of {start.name}: {out}")


if __name__ == "__main__":
    tyro.cli(main)
