"""Furniture as pure data: each piece is a handful of boxes, cylinders, spheres and cones in room axes."""

from dataclasses import dataclass

import numpy as np

from sanawm_env.styles import BOOKS, FABRIC, WOOD, Colour

Vector = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One solid: shape is box, cylinder, sphere or cone (upright); centre and full size (x, y, z) in metres."""

    shape: str
    centre: Vector
    size: Vector
    colour: Colour


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A piece of furniture in room axes; lo and hi (3,) bound all its parts."""

    name: str
    parts: tuple[Part, ...]
    lo: Vector
    hi: Vector


AGAINST_WALL = ("sofa", "shelf", "cabinet", "bed")


def build(name: str, rng: np.random.Generator) -> tuple[Part, ...]:
    """The parts of a piece that stands on the floor at the origin, its back towards -y, facing +y."""
    return _BUILDERS[name](rng)


def place(name: str, parts: tuple[Part, ...], position: np.ndarray, quarter: int) -> Piece:
    """The piece turned by `quarter` right angles about z and moved to a floor position (2,)."""
    c, s = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarter % 4]
    placed = []
    for part in parts:
        x, y, z = part.centre
        sx, sy, sz = part.size
        centre = (c * x - s * y + float(position[0]), s * x + c * y + float(position[1]), z)
        size = (sy, sx, sz) if quarter % 2 else (sx, sy, sz)
        placed.append(Part(shape=part.shape, centre=centre, size=size, colour=part.colour))
    lo = np.min([np.subtract(p.centre, np.divide(p.size, 2)) for p in placed], axis=0)
    hi = np.max([np.add(p.centre, np.divide(p.size, 2)) for p in placed], axis=0)
    return Piece(name=name, parts=tuple(placed), lo=tuple(lo.tolist()), hi=tuple(hi.tolist()))


def _box(x: float, y: float, z: float, sx: float, sy: float, sz: float, colour: Colour) -> Part:
    """A box from its centre in the plane and its lower side."""
    return Part(shape="box", centre=(x, y, z + sz / 2), size=(sx, sy, sz), colour=colour)


def _round(shape: str, z: float, width: float, height: float, colour: Colour) -> Part:
    return Part(shape=shape, centre=(0.0, 0.0, z + height / 2), size=(width, width, height), colour=colour)


def _pick(colours: tuple[Colour, ...], rng: np.random.Generator) -> Colour:
    return colours[rng.integers(len(colours))]


def _legs(sx: float, sy: float, height: float, colour: Colour) -> list[Part]:
    x, y = sx / 2 - 0.06, sy / 2 - 0.06
    return [_box(i * x, j * y, 0, 0.08, 0.08, height, colour) for i in (-1, 1) for j in (-1, 1)]


def _table(rng: np.random.Generator) -> tuple[Part, ...]:
    sx, sy, height = rng.uniform(1.0, 1.7), rng.uniform(0.65, 0.9), rng.uniform(0.45, 0.76)
    top, leg = _pick(WOOD, rng), _pick(WOOD, rng)
    parts = [_box(0, 0, height - 0.06, sx, sy, 0.06, top), *_legs(sx, sy, height - 0.06, leg)]
    if rng.random() < 0.5:
        parts.append(_box(rng.uniform(-0.2, 0.2) * sx, 0, height, 0.3, 0.22, 0.16, _pick(BOOKS, rng)))
    return tuple(parts)


def _chair(rng: np.random.Generator) -> tuple[Part, ...]:
    wood, seat = _pick(WOOD, rng), _pick(FABRIC, rng)
    return (
        _box(0, 0, 0.42, 0.46, 0.46, 0.07, seat),
        _box(0, -0.2, 0.49, 0.46, 0.06, 0.45, seat),
        *_legs(0.46, 0.46, 0.42, wood),
    )


def _sofa(rng: np.random.Generator) -> tuple[Part, ...]:
    sx = rng.uniform(1.5, 2.2)
    frame = _pick(FABRIC, rng)
    cushion = tuple(min(255, int(c * 1.22)) for c in frame)
    half = (sx - 0.4) / 2
    return (
        _box(0, 0, 0.05, sx, 0.85, 0.3, frame),
        _box(0, -0.34, 0.35, sx, 0.17, 0.45, frame),
        _box(-sx / 2 + 0.1, 0, 0.35, 0.2, 0.85, 0.25, frame),
        _box(sx / 2 - 0.1, 0, 0.35, 0.2, 0.85, 0.25, frame),
        _box(-half / 2 - 0.01, 0.08, 0.35, half - 0.02, 0.66, 0.12, cushion),
        _box(half / 2 + 0.01, 0.08, 0.35, half - 0.02, 0.66, 0.12, cushion),
    )


def _shelf(rng: np.random.Generator) -> tuple[Part, ...]:
    sx, height, depth = rng.uniform(0.9, 1.5), rng.uniform(1.4, 2.1), 0.34
    wood = _pick(WOOD, rng)
    dark = tuple(int(c * 0.62) for c in wood)
    # No two parts end in the same plane: what shares a plane flickers.
    parts = [_box(0, -depth / 2 + 0.025, 0, sx - 0.06, 0.04, height - 0.01, dark)]
    parts += [_box(i * (sx / 2 - 0.025), 0, 0, 0.05, depth, height, wood) for i in (-1, 1)]
    rows = max(3, round(height / 0.45))
    step = (height - 0.05) / rows
    parts += [_box(0, 0.01, row * step, sx - 0.1, depth - 0.02, 0.05, wood) for row in range(rows + 1)]
    for row in range(rows):
        x = -sx / 2 + 0.08
        while x < sx / 2 - 0.25:  # blocks of books, wide enough to be seen from across the room
            width = rng.uniform(0.12, 0.3)
            if rng.random() < 0.75:
                tall = rng.uniform(0.55, 0.85) * (step - 0.05)
                parts.append(_box(x + width / 2, 0, row * step + 0.05, width, 0.24, tall, _pick(BOOKS, rng)))
            x += width + 0.02
    return tuple(parts)


def _cabinet(rng: np.random.Generator) -> tuple[Part, ...]:
    sx, height = rng.uniform(0.8, 1.5), rng.uniform(0.7, 1.1)
    wood = _pick(WOOD, rng)
    front = tuple(min(255, int(c * 1.25)) for c in wood)
    doors = 2 if sx < 1.15 else 3
    width = sx / doors
    parts = [_box(0, 0, 0, sx, 0.45, height, wood)]
    for i in range(doors):
        x = -sx / 2 + (i + 0.5) * width
        parts.append(_box(x, 0.235, 0.1, width - 0.08, 0.03, height - 0.18, front))
        parts.append(_box(x + width / 2 - 0.1, 0.265, height * 0.55, 0.05, 0.03, 0.12, (70, 66, 62)))
    return tuple(parts)


def _bed(rng: np.random.Generator) -> tuple[Part, ...]:
    sx, wood, blanket = rng.uniform(1.2, 1.7), _pick(WOOD, rng), _pick(FABRIC, rng)
    return (
        _box(0, 0, 0.08, sx, 2.0, 0.26, wood),
        _box(0, -0.97, 0.08, sx, 0.06, 0.85, wood),
        _box(0, 0.2, 0.34, sx - 0.04, 1.56, 0.2, blanket),
        _box(0, -0.76, 0.34, sx - 0.04, 0.36, 0.2, (226, 222, 214)),
        _box(0, -0.74, 0.54, sx * 0.6, 0.3, 0.1, (240, 236, 230)),
    )


def _lamp(rng: np.random.Generator) -> tuple[Part, ...]:
    shade = _pick(((244, 226, 176), (232, 232, 226), (206, 160, 140)), rng)
    return (
        _round("cylinder", 0, 0.34, 0.05, (66, 62, 60)),
        _round("cylinder", 0.05, 0.07, 1.3, (66, 62, 60)),
        _round("cone", 1.3, 0.5, 0.42, shade),
    )


def _crate(rng: np.random.Generator) -> tuple[Part, ...]:
    size, colour = rng.uniform(0.42, 0.7), _pick(WOOD[:3] + FABRIC, rng)
    band = tuple(int(c * 0.65) for c in colour)
    parts = [_box(0, 0, 0, size, size, size, colour)]
    parts += [_box(0, 0, z * size, size + 0.03, size + 0.03, 0.1 * size, band) for z in (0.0, 0.87)]
    if rng.random() < 0.35:
        parts.append(_box(0, 0, size, size * 0.6, size * 0.6, size * 0.5, _pick(BOOKS, rng)))
    return tuple(parts)


def _plant(rng: np.random.Generator) -> tuple[Part, ...]:
    pot = _pick(((170, 104, 76), (214, 210, 202), (84, 88, 96)), rng)
    leaf, crown = (84, 120, 72), rng.uniform(0.45, 0.7)
    trunk = rng.uniform(0.2, 0.5)
    return (
        _round("cylinder", 0, 0.36, 0.36, pot),
        _round("cylinder", 0.36, 0.07, trunk + 0.1, (104, 80, 58)),
        _round("sphere", 0.36 + trunk, crown, crown * 1.15, leaf),
    )


def _column(rng: np.random.Generator) -> tuple[Part, ...]:
    stone = _pick(((214, 208, 198), (158, 158, 160), (176, 140, 116)), rng)
    dark = tuple(int(c * 0.72) for c in stone)
    return (
        _box(0, 0, 0, 0.5, 0.5, 0.22, dark),
        _round("cylinder", 0.22, 0.36, 3.2, stone),  # runs through the ceiling
        _round("cylinder", 1.2, 0.42, 0.16, dark),
    )


_BUILDERS = {
    "table": _table,
    "chair": _chair,
    "sofa": _sofa,
    "shelf": _shelf,
    "cabinet": _cabinet,
    "bed": _bed,
    "lamp": _lamp,
    "box": _crate,
    "plant": _plant,
    "column": _column,
}
