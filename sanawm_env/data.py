"""Write episodes of procedural rooms for training. Resumable, and the same from the same seed.

    sanawm data --out DIR --episodes 600 --workers 2 --split train

An episode is a function of (seed, split, index): one room, one camera path, one camera.
"""

import logging
import multiprocessing
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sanawm_env.paths import TEST_KINDS, TRAIN_KINDS, allowed, integrate, plan, sample_start, scripted
from sanawm_env.scenes import SPLITS, WORLD, Scene, make_scene, scene_seed, stable_hash
from world_model.errors import EpisodeError, InputError
from world_model.train.data.episode import Episode, read_header, write_episode

FPS = 16.0
SIZE = 128  # pixels, both ways
FRAMES = {"train": 97, "val": 65, "test": 65}
DEFAULT_FOV = np.radians(70)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EpisodePlan:
    """An episode before it is drawn. c2w (T, 4, 4) float64 in room axes; fov: horizontal, in radians."""

    scene: Scene
    c2w: np.ndarray
    twists: np.ndarray
    fov: float
    kind: str
    meta: dict


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Options of `sanawm data`.

    out: the folder that gets one sub-folder a split. frames: per episode; 0 takes 97 for train, 65 otherwise.
    start_index: index of the first episode, so that several machines can share one set.
    """

    out: Path
    episodes: int
    workers: int = 1
    split: str = "train"
    seed: int = 0
    frames: int = 0
    start_index: int = 0

    def __post_init__(self):
        if self.split not in SPLITS:
            raise InputError(f"split: expected one of {SPLITS}, got {self.split!r}")
        for name, low in (("episodes", 1), ("workers", 1), ("seed", 0), ("frames", 0), ("start_index", 0)):
            if getattr(self, name) < low:
                raise InputError(f"{name}: expected an integer >= {low}, got {getattr(self, name)}")


def plan_episode(
    split: str, index: int, *, seed: int = 0, frames: int | None = None, kind: str | None = None
) -> EpisodePlan:
    """Room, camera and path of an episode; needs no PyBullet.

    kind: a path kind; by default drawn (train, val) or taken in turn from `TEST_KINDS` (test), whose paths are
    scripted. Rooms in which no path of that kind fits are passed over.
    """
    if split not in SPLITS:
        raise InputError(f"split: expected one of {SPLITS}, got {split!r}")
    frames = FRAMES[split] if frames is None else frames
    if frames < 1:
        raise InputError(f"frames: expected an integer >= 1, got {frames}")
    rng = np.random.default_rng(stable_hash("path", seed, split, index))
    if kind is None and split == "test":
        kind = TEST_KINDS[index % len(TEST_KINDS)]
    elif kind is None:
        kind = str(rng.choice(list(TRAIN_KINDS), p=list(TRAIN_KINDS.values())))
    # Half of all cameras have the default view: that is what a user's start image gets.
    fov = DEFAULT_FOV if rng.random() < 0.5 else np.radians(rng.uniform(60, 80))
    for attempt in range(100):
        scene = make_scene(scene_seed(split, index, seed=seed, attempt=attempt))
        path = _path(scene, split, kind, frames, fov, rng)
        if path is not None:
            break
    else:
        raise InputError(f"path kind: expected one that fits a room, got {kind!r} which fits none of 100")
    start, twists = path
    meta = {"split": split, "index": index, "seed": seed, "scene_seed": scene.seed, "path": kind, "world": WORLD}
    c2w = integrate(start, twists, FPS)
    return EpisodePlan(scene=scene, c2w=c2w, twists=twists, fov=float(fov), kind=kind, meta=meta)


def _path(
    scene: Scene, split: str, kind: str, frames: int, fov: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray] | None:
    """A start pose (4, 4) and twists (frames - 1, 6) of a kind; None if twenty start poses do not allow it."""
    space, goal = scene.space(), np.array(scene.goal.centre)
    is_scripted = split == "test" and kind != "random"
    for _ in range(20):
        start = sample_start(space, goal, fov, rng, level=is_scripted)
        if start is None:
            return None
        if not is_scripted:
            return start, plan(space, start, kind, frames, FPS, rng)
        twists = scripted(kind, frames, FPS, rng)
        if allowed(space, integrate(start, twists, FPS)):
            return start, twists
    return None


def render_episode(
    split: str,
    index: int,
    *,
    seed: int = 0,
    frames: int | None = None,
    kind: str | None = None,
    size: int = SIZE,
    depth: bool = False,
) -> Episode:
    """Plan and draw an episode of size x size pixels; depth (T, size, size) is included when asked for."""
    # PyBullet is an extra and prints on import: nothing but drawing may need it.
    from sanawm_env.render import SceneRenderer, pinhole

    episode = plan_episode(split, index, seed=seed, frames=frames, kind=kind)
    intrinsics = pinhole(episode.fov, size, size)
    with SceneRenderer(episode.scene) as renderer:
        images = np.stack([renderer.render(pose, intrinsics, size, size) for pose in episode.c2w])
        depths = None
        if depth:
            depths = np.stack([renderer.depth(pose, intrinsics, size, size)[0] for pose in episode.c2w])
            depths = depths.astype(np.float16)
    to_start = np.linalg.inv(episode.c2w[0])
    goal = to_start[:3, :3] @ np.array(episode.scene.goal.centre) + to_start[:3, 3]
    return Episode(
        frames=images,
        c2w=(to_start @ episode.c2w).astype(np.float32),
        intrinsics=np.tile(intrinsics.astype(np.float32), (len(images), 1)),
        caption=episode.scene.caption,
        fps=FPS,
        goal=goal.astype(np.float32),
        depth=depths,
        meta=episode.meta,
    )


def is_complete(folder: Path, *, seed: int, split: str, index: int, frames: int) -> bool:
    """Whether a folder holds exactly that episode, of today's `WORLD`; one that is broken is logged."""
    if not folder.exists():
        return False
    try:
        header = read_header(folder)
    except EpisodeError as error:
        _log.warning("rendering again: %s", error)
        return False
    asked = {"seed": seed, "split": split, "index": index, "world": WORLD}
    return header["frames"] == frames and asked.items() <= header["meta"].items()


def generate(
    out: Path,
    split: str,
    episodes: int,
    workers: int = 1,
    *,
    seed: int = 0,
    frames: int | None = None,
    start_index: int = 0,
) -> int:
    """Write episodes start_index ... start_index + episodes - 1 to out/<split>/<index>; returns how many were new.

    Those that are complete stay; the rest is drawn, in `workers` processes. Test episodes hold depth.
    """
    frames = FRAMES[split] if frames is None else frames
    folder = Path(out) / split
    folder.mkdir(parents=True, exist_ok=True)
    task = partial(_write_one, folder, split, seed, frames)
    indices = range(start_index, start_index + episodes)
    if workers == 1:
        return _count(map(task, indices), episodes, split)
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        return _count(pool.imap_unordered(task, indices), episodes, split)


def _count(done: Iterable[bool], episodes: int, split: str) -> int:
    return sum(tqdm(done, total=episodes, desc=split, unit="episode", smoothing=0.05))


def _write_one(folder: Path, split: str, seed: int, frames: int, index: int) -> bool:
    """Draw one episode unless it is there; whether it was drawn."""
    target = folder / f"{index:06d}"
    if is_complete(target, seed=seed, split=split, index=index, frames=frames):
        return False
    write_episode(target, render_episode(split, index, seed=seed, frames=frames, depth=split == "test"))
    return True


def main() -> None:
    """The command `sanawm data`."""
    import tyro

    config = tyro.cli(DataConfig, prog="sanawm data", description=__doc__)
    generate(
        config.out,
        config.split,
        config.episodes,
        config.workers,
        seed=config.seed,
        frames=config.frames or None,
        start_index=config.start_index,
    )


if __name__ == "__main__":
    main()
