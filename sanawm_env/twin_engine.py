"""The true renderer as an engine: PyBullet draws the rooms that start scenes show. Frames are what a world model
should have generated along the same path.

Worlds are `ArrayWorlds`: scene (N,) int64, seed of the room; start (N, 4, 4) float64, pose of the start frame in room
axes; pose (N, 4, 4) float64, of the last frame relative to it; intrinsics (N, 4) float32; seed (N,) int64, which draws
nothing here. Frames follow from these: nothing else needs to be kept.

Shapes: N worlds, F frames of a step, H, W pixels.
"""

import importlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from sanawm_env.engine import Chunk, Pixels
from sanawm_env.obstacles import Obstacles
from sanawm_env.places import place_of, plan_room, read_room
from sanawm_env.renderers import Renderers
from sanawm_env.scenes import WORLD, make_scene
from sanawm_env.starts import Start, choose_start
from sanawm_env.world_model_engine import default_lens
from sanawm_env.worlds import ArrayWorlds
from world_model.config import WorldConfig
from world_model.errors import InputError
from world_model.images import fit_image


class TwinEngine:
    """Draws frames with PyBullet. See `sanawm_env.engine.Engine`.

    depth: tell the depth of the last frame too, "depth" (H, W, 1) float32 metres. collide: the camera slides along
    what it touches, else it passes through. Raises BackendError without PyBullet.
    """

    has_latents = False

    def __init__(self, config: WorldConfig, *, depth: bool = False, collide: bool = False) -> None:
        importlib.import_module("sanawm_env.render")  # now, rather than at the first reset
        self.config, self.depth, self.collide = config, depth, collide
        self.signals = ("contact", "depth") if depth else ("contact",)
        self.size = config.tokenizer.height, config.tokenizer.width
        step = f"{config.frames_per_step}-frames-at-{config.fps:g}"
        self.fingerprint = f"twin-of-rooms-{WORLD}-{self.size[1]}x{self.size[0]}-{step}"
        self._renderers = Renderers()

    def choose(self, options: Mapping[str, Any] | None, bank: Sequence[Start], rng: np.random.Generator) -> Start:
        options = dict(options or {})
        own = sorted({"image", "intrinsics"} & set(options))
        if own:
            raise InputError(f"options: expected a scene that can be rendered ('scene', 'room', 'twin'), got {own}")
        if "room" not in options:
            start = choose_start(options, bank, rng)
        else:
            others = sorted({"scene", "twin"} & set(options))
            if others:
                raise InputError(f"options: expected one of 'room', 'scene' and 'twin', got 'room' and {others}")
            room = self.room(*read_room(options.pop("room")))
            start = choose_start(options | {"scene": 0}, [room], rng)
        place_of(start)
        return start

    def room(self, split: str, index: int, seed: int = 0) -> Start:
        """A start in the procedural room (split, index, seed); the goal may be out of view. Raises InputError."""
        plan, place = plan_room(split, index, seed)
        height, width = self.size
        from sanawm_env.render import pinhole

        lens = pinhole(plan.fov, width, height).astype(np.float32)
        to_start = np.linalg.inv(place.pose)
        goal = (to_start[:3, :3] @ np.array(plan.scene.goal.centre) + to_start[:3, 3]).astype(np.float32)
        return Start(
            name=f"{split}-{index}" if seed == 0 else f"{split}-{index}-of-{seed}",
            image=self._renderers.of(place.scene_seed).render(place.pose, lens.astype(np.float64), width, height),
            prompt=plan.scene.caption,
            intrinsics=lens,
            goal=goal.astype(np.float64),
            meta={"split": split, "index": index, "seed": seed, **place.meta()},
        )

    def begin(self, starts: Sequence[Start], seeds: Sequence[int], pixels: Pixels) -> tuple[ArrayWorlds, Chunk]:
        places = [place_of(start) for start in starts]
        lenses = [default_lens(s) if s.intrinsics is None else s.intrinsics for s in starts]
        fitted = [fit_image(start.image, lens, self.size)[1] for start, lens in zip(starts, lenses, strict=True)]
        worlds = ArrayWorlds(
            model=self.fingerprint,
            arrays={
                "scene": np.array([place.scene_seed for place in places], np.int64),
                "start": np.stack([place.pose for place in places]),
                "pose": np.tile(np.eye(4), (len(starts), 1, 1)),
                "intrinsics": np.stack([lens.numpy() for lens in fitted]).astype(np.float32),
                "seed": np.array(seeds, np.int64),
            },
        )
        paths = worlds.arrays["pose"][:, None]
        contacts = [obstacles(p.scene_seed).touched(p.pose[None, :3, 3]) for p in places]
        return worlds, self._draw(worlds, paths, contacts, pixels)

    def intrinsics(self, worlds: ArrayWorlds) -> np.ndarray:
        return worlds.arrays["intrinsics"].copy()

    def advance(self, worlds: ArrayWorlds, paths: np.ndarray, pixels: Pixels) -> tuple[ArrayWorlds, Chunk]:
        contacts, reached = [], paths.copy()
        for i, (scene, start, pose) in enumerate(
            zip(*(worlds.arrays[n] for n in ("scene", "start", "pose")), strict=True)
        ):
            relative = np.concatenate([pose[None, :3, 3], paths[i, :, :3, 3]])
            places = relative @ start[:3, :3].T + start[:3, 3]
            if self.collide:
                places, touched = obstacles(int(scene)).slide(places)
                if touched:
                    reached[i, :, :3, 3] = (places[1:] - start[:3, 3]) @ start[:3, :3]
            else:
                touched = obstacles(int(scene)).touched(places)
            contacts.append(touched)
        after = worlds.replace({"pose": reached[:, -1].copy()})
        return after, self._draw(after, reached, contacts, pixels)

    def look(self, worlds: ArrayWorlds) -> np.ndarray:
        """What every world shows now, (N, H, W, 3) uint8."""
        contacts = [False] * len(worlds)
        frames = self._draw(worlds, worlds.arrays["pose"][:, None], contacts, "last").frames
        assert frames is not None  # "last" draws one
        return frames[:, -1]

    def close(self) -> None:
        self._renderers.close()

    def _draw(self, worlds: ArrayWorlds, paths: np.ndarray, contacts: Sequence[bool], pixels: Pixels) -> Chunk:
        """Frames and signals along paths (N, F, 4, 4) relative to the start frames."""
        height, width = self.size
        frames, signals = [], []
        seeds = worlds.arrays["scene"].tolist()
        for i, (seed, contact) in enumerate(zip(seeds, contacts, strict=True)):
            lens = worlds.arrays["intrinsics"][i].astype(np.float64)
            poses = worlds.arrays["start"][i] @ paths[i]
            signal = {"contact": np.array(contact)}
            if pixels != "none" or self.depth:
                renderer = self._renderers.of(seed)
                shown = {"none": [], "last": poses[-1:], "all": poses}[pixels]
                frames.append([renderer.render(pose, lens, width, height) for pose in shown])
                if self.depth:
                    signal["depth"] = renderer.depth(poses[-1], lens, width, height)[0][..., None]
            signals.append(signal)
        self._renderers.trim(seeds)
        drawn = None if pixels == "none" else np.array(frames)
        return Chunk(poses=paths, frames=drawn, latents=None, signals=tuple(signals))


@lru_cache(maxsize=256)
def obstacles(scene_seed: int) -> Obstacles:
    """What can be touched in the room of a seed."""
    return Obstacles.of(make_scene(scene_seed))
