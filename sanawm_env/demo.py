"""Fly a scripted path through two start scenes; write a video and a contact sheet.

Both scenes are flown with the same actions and shown side by side.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
from tqdm import tqdm

from sanawm_env.film import enlarge, write_film, write_picture
from sanawm_env.registration import register_environments
from world_model.errors import InputError
from world_model.pictures import contact_sheet, side_by_side

SCENES = 2
COLUMNS = 8  # pictures a row of the contact sheet
ENLARGE = 3
# What the camera does, its action [vx, vy, vz, wx, wy, wz], and its share of the flight.
PATH = (
    ("ahead", (0, 0, 0.6, 0, 0, 0), 2),
    ("turn left", (0, 0, 0, 0, -0.7, 0), 2),
    ("turn right", (0, 0, 0, 0, 0.7, 0), 4),
    ("turn back", (0, 0, 0, 0, -0.7, 0), 2),
    ("step right", (0.8, 0, 0, 0, 0, 0), 1),
    ("step left", (-0.8, 0, 0, 0, 0, 0), 2),
    ("curve ahead", (0, 0, 0.5, 0, 0.5, 0), 3),
)


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Options of `sanawm demo`."""

    model: str = "nano"
    """A shipped model by name, or a folder."""
    out: Path = Path()
    """Folder that demo.mp4 and demo.png are written to."""
    seconds: float = 8.0
    """Length of the flight in simulated time."""
    seed: int = 0
    """Chooses the scenes and the worlds' noise."""
    device: str = "cpu"
    """Torch device."""

    def __post_init__(self) -> None:
        if not 0 < self.seconds <= 600:
            raise InputError(f"seconds: expected more than 0 and at most 600, got {self.seconds}")
        if self.seed < 0:
            raise InputError(f"seed: expected an integer >= 0, got {self.seed}")


@dataclass(frozen=True, kw_only=True)
class Flight:
    """Frames (T, H, W, 3) uint8 of one scene, the start frame first; wall-clock seconds of its steps."""

    scene: str
    frames: np.ndarray
    seconds: float


def script(steps: int) -> list[np.ndarray]:
    """The actions (6,) float32 of a flight of `steps` steps: `PATH`, each leg by its share."""
    ends = np.cumsum([share for *_, share in PATH])
    legs = np.searchsorted(ends, (np.arange(steps) + 0.5) / steps * ends[-1])
    return [np.array(PATH[leg][1], np.float32) for leg in legs]


def fly(env: gym.Env, actions: Sequence[np.ndarray], scene: str, seed: int, bar: tqdm) -> Flight:
    """One flight through one scene of the bank; the environment must give all frames of a step."""
    start, _ = env.reset(seed=seed, options={"scene": scene})
    chunks = [start[None]]
    began = time.perf_counter()
    for action in actions:
        chunks.append(env.step(action)[-1]["frames"])
        bar.update(len(chunks[-1]))
    return Flight(scene=scene, frames=np.concatenate(chunks), seconds=time.perf_counter() - began)


def fly_all(demo: Demo) -> tuple[list[Flight], float]:
    """Flights through `SCENES` different scenes, with a progress bar; and the frames a second of the video."""
    register_environments()
    env = gym.make(
        "SanaWM-v0", model=demo.model, device=demo.device, task="none", info_frames=True, max_episode_steps=-1
    )
    config = env.unwrapped.model.config  # pyright: ignore[reportAttributeAccessIssue]
    actions = script(max(1, round(demo.seconds * config.fps / config.frames_per_step)))
    names = env.unwrapped.scenes  # pyright: ignore[reportAttributeAccessIssue]
    if not names:
        raise InputError(f"demo: expected a bank of start scenes beside the model {demo.model!r}, got none")
    rng = np.random.default_rng(demo.seed)
    scenes = rng.choice(names, SCENES, replace=len(names) < SCENES).tolist()
    total = SCENES * len(actions) * config.frames_per_step
    with tqdm(total=total, desc="flying", unit="frame") as bar:
        flights = [fly(env, actions, scene, demo.seed, bar) for scene in scenes]
    env.close()
    return flights, config.fps


def report(demo: Demo, flights: Sequence[Flight], fps: float) -> str:
    """Write the files; say how fast it was and where they are."""
    views = [flight.frames for flight in flights]
    columns = np.linspace(0, len(views[0]) - 1, min(COLUMNS, len(views[0]))).round().astype(int)
    film, sheet = (demo.out / name for name in ("demo.mp4", "demo.png"))
    write_film(film, enlarge(side_by_side(views), ENLARGE), fps)
    write_picture(sheet, contact_sheet([view[columns] for view in views]))
    made = sum(len(view) - 1 for view in views)
    wall = sum(flight.seconds for flight in flights)
    times = ", ".join(f"{index / fps:.1f}" for index in columns)
    return "\n".join(
        [
            f"scenes: {', '.join(flight.scene for flight in flights)}; path: {', '.join(leg for leg, *_ in PATH)}",
            f"{made} frames of {views[0].shape[2]}x{views[0].shape[1]} in {wall:.1f} s: {made / wall:.1f} frames/s "
            f"(the video plays {fps:g} a second)",
            f"video: {film.resolve()}",
            f"contact sheet, at {times} s: {sheet.resolve()}",
        ]
    )


def main() -> None:
    """The command `sanawm demo`."""
    import tyro

    demo = tyro.cli(Demo, prog="sanawm demo", description=__doc__)
    print(report(demo, *fly_all(demo)))


if __name__ == "__main__":
    main()
