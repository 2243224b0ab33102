"""Fly the world model beside its twin, the true renderer: python examples/beside_twin.py --room 3"""

from pathlib import Path

import gymnasium as gym
import numpy as np
import tyro

import sanawm_env  # noqa: F401  registers the environments
from sanawm_env.film import write_picture
from world_model.pictures import contact_sheet

LEGS = (((0, 0, 0.6, 0, 0, 0), 2), ((0, 0, 0, 0, -0.7, 0), 2), ((0.8, 0, 0, 0, 0, 0), 2), ((0, 0, 0.5, 0, 0.5, 0), 2))


def main(
    model: str = "nano", room: int = 3, split: str = "test", seed: int = 0, out: Path = Path("runs/beside_twin.png")
) -> None:
    """Both start from the twin's view of a procedural room and are given the same actions.

    Args:
        model: a shipped model by name, or a folder.
        room: index of the room in its split.
        split: train, val or test; the shipped model has seen none but those of train.
        seed: of the world's noise.
        out: the picture: the twin above, the world model below.
    """
    twin = gym.make("SanaWMTwin-v0", model=model, task="none")
    generated = gym.make("SanaWM-v0", model=model, task="none")
    true, _ = twin.reset(seed=seed, options={"room": {"split": split, "index": room}})
    guessed, _ = generated.reset(seed=seed, options={"twin": twin})
    rows = [true], [guessed]
    for action, steps in LEGS:
        for _ in range(steps):
            true, *_, told = twin.step(np.array(action, np.float32))
            guessed, *_, info = generated.step(np.array(action, np.float32))
            error = np.mean((true / 255 - guessed / 255) ** 2)
            contact = ", in contact" if told["contact"] else ""
            print(f"{info['time']:.2f} s: {-10 * np.log10(max(error, 1e-10)):.1f} dB{contact}")
            rows[0].append(true)
            rows[1].append(guessed)
    write_picture(out, contact_sheet(rows))
    print(f"twin above, world model below: {out}")
    twin.close()
    generated.close()


if __name__ == "__main__":
    tyro.cli(main)
