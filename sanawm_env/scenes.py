"""Procedural rooms as pure data: a frozen `Scene` from a seed. `SceneRenderer` in render.py draws it.

Room axes: x and y along the floor, z up, metres, the room's box from (0, 0, 0) to `size`. Walls are numbered
0..3 (see `WALLS`); along a wall, u runs from left to right as seen from inside.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass

import numpy as np

from sanawm_env.furniture import AGAINST_WALL, Piece, Vector, build, place
from sanawm_env.paths import Space
from sanawm_env.styles import (
    COUNTS,
    DOOR_COLOURS,
    FABRIC,
    FEATURES,
    FURNITURE,
    GOAL_COLOURS,
    GOAL_SHAPES,
    LIGHTS,
    STYLES,
    Colour,
)
from world_model.errors import InputError

SPLITS = ("train", "val", "test")
SEED_RANGE = 2**60
WORLD = 2  # raise it when a seed's room, path or picture changes: episodes of an older world are drawn again
# Of each wall: the corner where u = 0 as (x, y) shares of the size, the direction of u, the inward normal.
WALLS = (
    ((1, 0), (-1, 0), (0, 1)),
    ((1, 1), (0, -1), (-1, 0)),
    ((0, 1), (1, 0), (0, -1)),
    ((0, 0), (0, 1), (1, 0)),
)


@dataclass(frozen=True, kw_only=True)
class Feature:
    """A door, doorway, window or picture: u and z ranges on a wall in metres; art chooses a picture's motif."""

    name: str
    wall: int
    u: tuple[float, float]
    z: tuple[float, float]
    colour: Colour
    colour_name: str
    art: int


@dataclass(frozen=True, kw_only=True)
class Rug:
    """A carpet on the floor: lower and upper corner (x, y) in metres."""

    lo: tuple[float, float]
    hi: tuple[float, float]
    colour: Colour


@dataclass(frozen=True, kw_only=True)
class Goal:
    """The one saturated thing in a room. centre and size (3,) in metres, room axes."""

    name: str
    colour: str
    centre: Vector
    size: Vector


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One room: everything that its renderer and its caption need. light is the direction towards the light."""

    seed: int
    style: str
    size: Vector
    wall_pattern: str
    wall_colour: str
    accent_wall: int
    floor_pattern: str
    floor_colour: str
    features: tuple[Feature, ...]
    rugs: tuple[Rug, ...]
    furniture: tuple[Piece, ...]
    goal: Goal
    light: Vector
    light_colour: Vector

    @property
    def caption(self) -> str:
        """What a visitor would say: walls, floor, door, things by number, and the goal."""
        counts = Counter(f.name for f in self.features) + Counter(p.name for p in self.furniture)
        counts += Counter(["rug"] * len(self.rugs))
        doors = [f.colour_name for f in self.features if f.name == "door"]
        things = [
            f"{self.wall_colour} {self.wall_pattern} walls",
            f"a {self.floor_colour} {self.floor_pattern} floor",
        ]
        for name, plural in (FEATURES | FURNITURE).items():
            count = counts[name]
            if count == 1:
                things.append(f"a {doors[0]} door" if name == "door" else f"a {name}")
            elif count:
                things.append(f"{COUNTS[min(count, len(COUNTS) - 1)]} {plural}")
        article = "an" if self.goal.colour[0] in "aeiou" else "a"
        return f"a room with {', '.join(things)} and {article} {self.goal.colour} {self.goal.name}"

    def space(self, *, goal: bool = True) -> Space:
        """Where a camera may be; the goal is solid unless told otherwise."""
        boxes = [(p.lo, p.hi) for p in self.furniture]
        if goal:
            half = np.divide(self.goal.size, 2)
            boxes.append((np.subtract(self.goal.centre, half), np.add(self.goal.centre, half)))
        return Space(lo=np.zeros(3), hi=np.array(self.size), boxes=np.array(boxes, float).reshape(-1, 2, 3))


def stable_hash(*parts: str | int) -> int:
    """An integer below 2**60 that is the same on every machine and in every process."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % SEED_RANGE


def scene_seed(split: str, index: int, *, seed: int = 0, attempt: int = 0) -> int:
    """The seed of a room of a split: splits own disjoint ranges of 2**60 seeds, so their rooms never overlap."""
    if split not in SPLITS:
        raise InputError(f"split: expected one of {SPLITS}, got {split!r}")
    return SPLITS.index(split) * SEED_RANGE + stable_hash("scene", seed, split, index, attempt)


def make_scene(seed: int) -> Scene:
    """The room of a seed: the same on every call."""
    rng = np.random.default_rng(seed)
    name = _choice(tuple(STYLES), rng)
    style = STYLES[name]
    size = (*rng.uniform(5.0, 8.5, 2).round(2).tolist(), round(rng.uniform(2.6, 3.0), 2))
    features = _features(size, rng)
    goal = _goal(size, rng)
    azimuth, height = rng.uniform(-np.pi, np.pi), rng.uniform(0.8, 1.6)
    light = np.array([np.cos(azimuth), np.sin(azimuth), height])
    return Scene(
        seed=seed,
        style=name,
        size=size,
        wall_pattern=_choice(style.walls, rng),
        wall_colour=_choice(style.wall_colours, rng),
        accent_wall=int(rng.integers(4)),
        floor_pattern=_choice(style.floors, rng),
        floor_colour=_choice(style.floor_colours, rng),
        features=features,
        rugs=_rugs(size, rng),
        furniture=_furnish(size, style.furniture, features, goal, rng),
        goal=goal,
        light=tuple((light / np.linalg.norm(light)).tolist()),
        light_colour=LIGHTS[_choice(tuple(LIGHTS), rng)],
    )


def wall_width(size: Vector, wall: int) -> float:
    """Metres along a wall of a room of `size`."""
    return size[0] if wall % 2 == 0 else size[1]


def on_wall(size: Vector, wall: int, u: float, out: float = 0.0) -> np.ndarray:
    """The floor point (2,) at u metres along a wall and `out` metres into the room."""
    corner, along, normal = WALLS[wall]
    return np.multiply(corner, size[:2]) + np.multiply(u, along) + np.multiply(out, normal)


def _choice(options: tuple, rng: np.random.Generator):
    return options[rng.integers(len(options))]


def _feature(name: str, wall: int, middle: float, room: float, rng: np.random.Generator) -> Feature:
    """One feature around `middle` metres along a wall, at most `room` metres wide."""
    low, high, z = {
        "door": (0.85, 0.95, (0.0, 2.05)),
        "doorway": (0.95, 1.25, (0.0, 2.15)),
        "window": (1.0, 1.7, (rng.uniform(0.7, 1.0), rng.uniform(1.9, 2.2))),
        "picture": (0.55, 1.2, (rng.uniform(1.0, 1.25), rng.uniform(1.65, 2.0))),
    }[name]
    width = min(rng.uniform(low, high), room)
    colour_name = _choice(tuple(DOOR_COLOURS), rng)
    return Feature(
        name=name,
        wall=wall,
        u=(middle - width / 2, middle + width / 2),
        z=z,
        colour=DOOR_COLOURS[colour_name],
        colour_name=colour_name,
        art=int(rng.integers(1000)),
    )


def _features(size: Vector, rng: np.random.Generator) -> tuple[Feature, ...]:
    """Two to four features a wall; a door on one wall, a window on another, the rest drawn."""
    features = []
    door_wall = rng.integers(4)
    window_wall = (door_wall + rng.integers(1, 4)) % 4
    for wall in range(4):
        width = wall_width(size, wall)
        slots = int(width // 1.9)
        names = rng.choice(["picture", "window", "doorway", "door", "none"], slots, p=[0.46, 0.16, 0.1, 0.1, 0.18])
        if wall == door_wall:
            names[rng.integers(slots)] = rng.choice(["door", "doorway"], p=[0.7, 0.3])
        elif wall == window_wall:
            names[rng.integers(slots)] = "window"
        room = width / slots - 0.25
        for slot, name in enumerate(names):
            if name != "none":
                features.append(_feature(str(name), wall, (slot + 0.5) * width / slots, room, rng))
    return tuple(features)


def _goal(size: Vector, rng: np.random.Generator) -> Goal:
    name = _choice(tuple(GOAL_SHAPES), rng)
    width = rng.uniform(0.45, 0.65)
    height = {"ball": width, "cube": width, "cone": width * 1.5, "barrel": width * 1.3}[name]
    x, y = (rng.uniform(0.9, side - 0.9) for side in size[:2])
    return Goal(
        name=name,
        colour=_choice(tuple(GOAL_COLOURS), rng),
        centre=(float(x), float(y), float(height / 2)),
        size=(float(width), float(width), float(height)),
    )


def _rugs(size: Vector, rng: np.random.Generator) -> tuple[Rug, ...]:
    if rng.random() < 0.4:
        return ()
    half = rng.uniform(0.6, 1.3, 2)
    middle = rng.uniform(half + 0.5, np.array(size[:2]) - half - 0.5)
    lo, hi = (middle - half).tolist(), (middle + half).tolist()
    return (Rug(lo=tuple(lo), hi=tuple(hi), colour=_choice(FABRIC, rng)),)


def _furnish(
    size: Vector, names: tuple[str, ...], features: tuple[Feature, ...], goal: Goal, rng: np.random.Generator
) -> tuple[Piece, ...]:
    """Four to seven pieces that overlap neither each other, nor the goal, nor a door."""
    wanted = rng.integers(4, 8)
    blocked = [(np.array(goal.centre[:2]) - 0.75, np.array(goal.centre[:2]) + 0.75)]
    for f in features:
        if f.name in ("door", "doorway"):
            ends = np.stack([on_wall(size, f.wall, u, out) for u in f.u for out in (0.0, 1.0)])
            blocked.append((ends.min(0), ends.max(0)))
    pieces: list[Piece] = []
    for _ in range(60):
        if len(pieces) == wanted:
            break
        name = _choice(names, rng)
        if sum(piece.name == name for piece in pieces) == 2:
            continue
        parts = build(name, rng)
        if name in AGAINST_WALL:
            wall = int(rng.integers(4))
            flat = place(name, parts, np.zeros(2), 0)
            half = (flat.hi[0] - flat.lo[0]) / 2
            u = rng.uniform(half + 0.05, wall_width(size, wall) - half - 0.05)
            # Backs are at -y; of wall 0 that is outwards already, and each next wall is a quarter turn further.
            piece = place(name, parts, on_wall(size, wall, u, 0.03 - flat.lo[1]), wall)
        else:
            piece = place(name, parts, rng.uniform(0.7, np.array(size[:2]) - 0.7), int(rng.integers(4)))
        lo, hi = np.array(piece.lo[:2]), np.array(piece.hi[:2])
        gap = 0.08 if name in AGAINST_WALL else 0.3
        if (lo < 0.02).any() or (hi > np.array(size[:2]) - 0.02).any():
            continue
        if any(((lo - gap < b) & (hi + gap > a)).all() for a, b in blocked):
            continue
        pieces.append(piece)
        blocked.append((lo, hi))
    return tuple(pieces)
