"""Fork a world and compare two futures: python examples/fork_futures.py --steps 8"""

from pathlib import Path

import numpy as np
import tyro

from sanawm_env.actions import integrate_twist
from sanawm_env.film import write_picture
from sanawm_env.models import shared_model
from sanawm_env.starts import find_bank
from world_model import checkpoint
from world_model.pictures import contact_sheet

AHEAD, LEFT, RIGHT = (np.array(twist) for twist in ([0, 0, 0.6, 0, 0, 0], [0, 0, 0, 0, -0.6, 0], [0, 0, 0, 0, 0.6, 0]))


def main(
    model: str = "nano", scene: int = 0, steps: int = 8, seed: int = 0, out: Path = Path("runs/fork_futures.png")
) -> None:
    """Fly ahead, then turn left in one future and right in the other, starting from the same world.

    Args:
        model: a shipped model by name, or a folder.
        scene: index in the bank of start scenes.
        steps: of each future.
        seed: of the world's noise, the same in both futures.
        out: the picture, one row a future.
    """
    world_model = shared_model(model)
    config = world_model.config
    start = find_bank(None, checkpoint.find(model))[scene]
    world, frames = world_model.reset([start.image], [start.prompt], start.intrinsics, [seed])
    pose = np.eye(4)
    for _ in range(2):
        path = integrate_twist(pose, AHEAD, config.frames_per_step, config.fps)
        world, frames = world_model.step(world, path[None])
        pose = path[-1]

    futures = []
    for twist in (LEFT, RIGHT):
        state, here = world, pose  # a world is a value: keeping it is the fork
        views = [frames[0, -1].numpy()]
        for _ in range(steps):
            path = integrate_twist(here, twist, config.frames_per_step, config.fps)
            state, new = world_model.step(state, path[None])
            views.append(new[0, -1].numpy())
            here = path[-1]
        futures.append(np.stack(views))

    for step, (left, right) in enumerate(zip(*futures, strict=True)):
        apart = np.abs(left.astype(int) - right).mean()
        print(f"{step * config.frames_per_step / config.fps:.2f} s after the fork: {apart:.1f} of 255 apart")
    write_picture(out, contact_sheet(futures))
    print(f"left above, right below: {out}")


if __name__ == "__main__":
    tyro.cli(main)
