"""Textures of a room's surfaces, painted in numpy: strong, clean landmarks without texel noise.

A texture is uint8 (h, w, 3), row 0 at the top, `TEXELS` texels a metre. Corner darkening is baked in, since
the renderer casts no shadows.
"""

import numpy as np

from sanawm_env.scenes import Feature, Scene, wall_width
from sanawm_env.styles import BOOKS, FLOOR_COLOURS, WALL_COLOURS, Colour

TEXELS = 64
SKIRTING = 0.12  # metres
_SKY, _HILL = ((150, 190, 224), (214, 228, 234)), (126, 152, 116)


class Canvas:
    """A picture in metres: x to the right, y up from the lower edge. image is float (h, w, 3)."""

    def __init__(self, width: float, height: float, colour: Colour):
        self.image = np.empty((round(height * TEXELS), round(width * TEXELS), 3))
        self.image[:] = colour

    def rect(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        """Fill a rectangle, cut off at the edges."""
        h, w = self.image.shape[:2]
        columns = slice(max(0, round(x0 * TEXELS)), max(0, min(w, round(x1 * TEXELS))))
        rows = slice(max(0, h - round(y1 * TEXELS)), max(0, min(h, h - round(y0 * TEXELS))))
        self.image[rows, columns] = colour

    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """x (1, w) and y (h, 1) in metres of the texels' centres."""
        h, w = self.image.shape[:2]
        return (np.arange(w)[None] + 0.5) / TEXELS, (h - np.arange(h)[:, None] - 0.5) / TEXELS

    def blend(self, mask: np.ndarray, colour: Colour) -> None:
        """Mix in a colour by a mask (h, w) in [0, 1]."""
        self.image += np.clip(mask, 0, 1)[..., None] * (np.array(colour) - self.image)

    def shade(self, factor: np.ndarray) -> None:
        """Multiply by a factor (h, w)."""
        self.image *= factor[..., None]

    def pixels(self) -> np.ndarray:
        """uint8 (h, w, 3)."""
        return np.clip(np.round(self.image), 0, 255).astype(np.uint8)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """The colour that lies `share` of the way from a to b."""
    return tuple(float(x + share * (y - x)) for x, y in zip(a, b, strict=True))


def paint_wall(scene: Scene, wall: int) -> np.ndarray:
    """A whole wall with its pattern, skirting, door leaves, frames and pictures; openings are cut by the mesh."""
    width, height = wall_width(scene.size, wall), scene.size[2]
    base, contrast = WALL_COLOURS[scene.wall_colour]
    if wall == scene.accent_wall:
        base, contrast = mix(base, contrast, 0.75), mix(contrast, (255, 255, 255), 0.55)
    rng = np.random.default_rng([scene.seed, wall])
    canvas = Canvas(width, height, base)
    _WALLS[scene.wall_pattern](canvas, width, height, base, contrast, rng)
    dark = mix(contrast, (40, 36, 34), 0.6) if scene.seed % 2 else (236, 234, 228)
    canvas.rect(0, 0, width, SKIRTING, dark)
    canvas.rect(0, height - 0.08, width, height, mix(dark, base, 0.3))
    for feature in scene.features:
        if feature.wall == wall:
            _feature(canvas, feature)
    x, y = canvas.grid()
    edge = np.minimum(np.minimum(x, width - x), np.minimum(y, height - y))
    canvas.shade(1 - 0.2 * np.exp(-edge / 0.22))
    return canvas.pixels()


def _striped(c: Canvas, width: float, height: float, base: Colour, contrast: Colour, rng) -> None:
    pitch = width / round(width / rng.uniform(0.5, 0.8))
    for i in range(round(width / pitch)):
        c.rect(i * pitch, 0, (i + 0.5) * pitch, height, mix(base, contrast, 0.6))


def _tiled(c: Canvas, width: float, height: float, base: Colour, contrast: Colour, rng) -> None:
    side = width / round(width / rng.uniform(0.4, 0.55))
    columns, rows = round(width / side), int(height / side) + 1
    band, period = rng.integers(1, 4), rng.integers(2, 5)
    for row in range(rows):
        for column in range(columns):
            x, y = column * side, row * side
            if row == band or (row + column * 2) % (period + 3) == 0:
                c.rect(x, y, x + side, y + side, contrast)
            c.rect(x, y, x + 0.03, y + side, mix(base, (90, 90, 92), 0.5))
        c.rect(0, row * side, width, row * side + 0.03, mix(base, (90, 90, 92), 0.5))


def _panelled(c: Canvas, width: float, height: float, base: Colour, contrast: Colour, rng) -> None:
    rail = rng.uniform(0.9, 1.2)
    c.rect(0, 0, width, rail, contrast)
    count = round(width / rng.uniform(0.6, 0.85))
    pitch = width / count
    for i in range(count):
        c.rect(i * pitch + 0.1, 0.22, (i + 1) * pitch - 0.1, rail - 0.12, mix(contrast, (30, 30, 30), 0.25))
        c.rect(i * pitch + 0.13, 0.25, (i + 1) * pitch - 0.13, rail - 0.15, mix(contrast, base, 0.3))
        if i % 2 == 0:
            c.rect(i * pitch, rail, (i + 1) * pitch, height, mix(base, contrast, 0.22))
    c.rect(0, rail - 0.04, width, rail + 0.04, mix(base, (255, 255, 255), 0.6))


def _banded(c: Canvas, width: float, height: float, base: Colour, contrast: Colour, rng) -> None:
    low, line = rng.uniform(0.8, 1.3), rng.uniform(0.08, 0.16)
    c.rect(0, 0, width, low, contrast)
    c.rect(0, low, width, low + line, mix(contrast, (40, 40, 44), 0.7))
    pitch = width / round(width / rng.uniform(1.4, 2.0))
    for i in range(round(width / pitch) + 1):  # pilasters: something upright every few steps
        c.rect(i * pitch - 0.11, 0, i * pitch + 0.11, height, mix(base, contrast, 0.55))


def _brick(c: Canvas, width: float, height: float, base: Colour, contrast: Colour, rng) -> None:
    length = width / round(width / rng.uniform(0.7, 0.95))
    course = height / round(height / 0.36)
    joint = mix(base, (240, 236, 228), 0.6)
    for row in range(round(height / course)):
        for i in range(-1, round(width / length) + 1):
            x, y = (i + 0.5 * (row % 2)) * length, row * course
            c.rect(x, y, x + length, y + course, mix(base, contrast, 0.4 * rng.integers(0, 3)))
            c.rect(x, y, x + 0.035, y + course, joint)
        c.rect(0, row * course, width, row * course + 0.035, joint)


_WALLS = {"striped": _striped, "tiled": _tiled, "panelled": _panelled, "banded": _banded, "brick": _brick}


def _feature(c: Canvas, f: Feature) -> None:
    (u0, u1), (z0, z1) = f.u, f.z
    frame = mix(f.colour, (255, 255, 255), 0.75) if f.name != "picture" else mix(f.colour, (30, 26, 24), 0.3)
    border = 0.05 if f.name == "picture" else 0.09
    c.rect(u0 - border, z0 - (border if z0 else 0), u1 + border, z1 + border, frame)
    if f.name == "door":
        c.rect(u0, z0, u1, z1, f.colour)
        for low, high in ((0.15, 0.95), (1.1, 1.9)):
            c.rect(u0 + 0.13, low, u1 - 0.13, high, mix(f.colour, (20, 20, 20), 0.35))
            c.rect(u0 + 0.17, low + 0.04, u1 - 0.17, high - 0.04, mix(f.colour, (255, 255, 255), 0.12))
        c.rect(u1 - 0.1, 0.98, u1 - 0.04, 1.06, (222, 196, 120))
    elif f.name == "picture":
        _picture(c, f)


def _picture(c: Canvas, f: Feature) -> None:
    """A bold motif: a sun over hills, bands, a peak, or a cross; art draws motif and colours."""
    rng = np.random.default_rng(f.art)
    colours = [BOOKS[i] for i in rng.permutation(len(BOOKS))]
    (u0, u1), (z0, z1) = f.u, f.z
    c.rect(u0, z0, u1, z1, mix(colours[0], (255, 255, 255), 0.5))
    x, y = c.grid()
    inside = ((x > u0) & (x < u1)) * ((y > z0) & (y < z1))
    middle, height = (u0 + u1) / 2, z1 - z0
    motif = rng.integers(4)
    if motif == 0:
        distance = np.hypot(x - middle - 0.1, y - z0 - 0.65 * height)
        c.blend(inside * ((0.2 * height - distance) * TEXELS + 0.5), colours[1])
        c.rect(u0, z0, u1, z0 + 0.35 * height, colours[2])
    elif motif == 1:
        for i in range(3):
            c.rect(u0, z0 + (i + 0.2) / 3 * height, u1, z0 + (i + 0.75) / 3 * height, colours[1 + i])
    elif motif == 2:
        peak = 0.85 * height - np.abs(x - middle) * 1.3 - (y - z0)
        c.blend(inside * (peak * TEXELS + 0.5), colours[1])
        c.blend(inside * ((peak - 0.4 * height) * TEXELS + 0.5), colours[2])
    else:
        c.rect(u0 + 0.3 * (u1 - u0), z0, u0 + 0.5 * (u1 - u0), z1, colours[1])
        c.rect(u0, z0 + 0.4 * height, u1, z0 + 0.62 * height, colours[2])


def paint_floor(scene: Scene) -> np.ndarray:
    """The floor with its pattern, rugs, and a soft shadow under each piece of furniture and the goal."""
    sx, sy, _ = scene.size
    base, contrast = FLOOR_COLOURS[scene.floor_colour]
    rng = np.random.default_rng([scene.seed, 10])
    canvas = Canvas(sx, sy, base)
    _FLOORS[scene.floor_pattern](canvas, sx, sy, base, contrast, rng)
    for rug in scene.rugs:
        (x0, y0), (x1, y1) = rug.lo, rug.hi
        for inset, colour in ((0, mix(rug.colour, (30, 26, 24), 0.45)), (0.1, (224, 212, 190)), (0.2, rug.colour)):
            canvas.rect(x0 + inset, y0 + inset, x1 - inset, y1 - inset, colour)
        canvas.rect((x0 + x1) / 2 - 0.2, y0 + 0.35, (x0 + x1) / 2 + 0.2, y1 - 0.35, (224, 212, 190))
    x, y = canvas.grid()
    canvas.shade(1 - 0.22 * np.exp(-np.minimum(np.minimum(x, sx - x), np.minimum(y, sy - y)) / 0.25))
    for low, high in scene.space().boxes:
        gap = np.hypot(
            np.maximum(np.maximum(low[0] - x, x - high[0]), 0), np.maximum(np.maximum(low[1] - y, y - high[1]), 0)
        )
        canvas.shade(1 - 0.38 * np.exp(-gap / 0.12))
    return canvas.pixels()


def _wooden(c: Canvas, sx: float, sy: float, base: Colour, contrast: Colour, rng) -> None:
    width = sy / round(sy / 0.32)
    for row in range(round(sy / width)):
        start = -rng.uniform(0, 1.8)
        while start < sx:
            end = start + 1.8
            c.rect(start, row * width, end, (row + 1) * width, mix(base, contrast, rng.integers(0, 4) / 4))
            c.rect(start, row * width, start + 0.03, (row + 1) * width, mix(contrast, (30, 20, 14), 0.5))
            start = end
        c.rect(0, row * width, sx, row * width + 0.025, mix(contrast, (30, 20, 14), 0.5))


def _checkered(c: Canvas, sx: float, sy: float, base: Colour, contrast: Colour, rng) -> None:
    nx, ny = round(sx / 0.6), round(sy / 0.6)
    for i in range(nx):
        for j in range(i % 2, ny, 2):
            c.rect(i * sx / nx, j * sy / ny, (i + 1) * sx / nx, (j + 1) * sy / ny, contrast)


def _floor_tiles(c: Canvas, sx: float, sy: float, base: Colour, contrast: Colour, rng) -> None:
    nx, ny = round(sx / 0.7), round(sy / 0.7)
    for i in range(nx):
        for j in range(ny):
            x, y = i * sx / nx, j * sy / ny
            tone = mix(base, contrast, 0.22 * rng.integers(0, 3))
            c.rect(x, y, x + sx / nx, y + sy / ny, contrast)
            c.rect(x + 0.025, y + 0.025, x + sx / nx - 0.025, y + sy / ny - 0.025, tone)


def _carpeted(c: Canvas, sx: float, sy: float, base: Colour, contrast: Colour, rng) -> None:
    count = round(sx / 1.1)
    for i in range(count):
        c.rect(i * sx / count, 0, (i + 0.5) * sx / count, sy, mix(base, contrast, 0.75))
    count = round(sy / 1.6)
    for j in range(count):
        c.rect(0, (j + 0.5) * sy / count - 0.06, sx, (j + 0.5) * sy / count + 0.06, mix(contrast, base, 0.2))


_FLOORS = {"wooden": _wooden, "checkered": _checkered, "tiled": _floor_tiles, "carpeted": _carpeted}


def paint_ceiling(scene: Scene) -> np.ndarray:
    """Beams and light panels: something to hold on to when looking up."""
    sx, sy, _ = scene.size
    canvas = Canvas(sx, sy, (250, 248, 244))
    rng = np.random.default_rng([scene.seed, 20])
    beam = (150, 122, 96) if scene.wall_pattern in ("brick", "panelled") else (206, 206, 204)
    count = rng.integers(3, 6)
    for i in range(1, count + 1):
        middle = i * sx / (count + 1)
        canvas.rect(middle - 0.12, 0, middle + 0.12, sy, beam)
    for i in range(count + 1):
        middle = (i + 0.5) * sx / (count + 1)
        canvas.rect(middle - 0.25, sy / 2 - 0.6, middle + 0.25, sy / 2 + 0.6, (205, 200, 188))
        canvas.rect(middle - 0.2, sy / 2 - 0.55, middle + 0.2, sy / 2 + 0.55, (255, 255, 255))
    x, y = canvas.grid()
    canvas.shade(1 - 0.22 * np.exp(-np.minimum(np.minimum(x, sx - x), np.minimum(y, sy - y)) / 0.3))
    return canvas.pixels()


def paint_view(width: float, height: float, seed: int) -> np.ndarray:
    """What a window shows: sky, a hill line, and the window's cross."""
    canvas = Canvas(width, height, _SKY[0])
    x, y = canvas.grid()
    canvas.blend(np.broadcast_to(1 - y / height, canvas.image.shape[:2]), _SKY[1])
    hill = height * (0.3 + 0.1 * np.sin(x * 2.2 + seed % 7)) - y
    canvas.blend(hill * TEXELS + 0.5, _HILL)
    canvas.rect(width / 2 - 0.035, 0, width / 2 + 0.035, height, (240, 238, 234))
    canvas.rect(0, height * 0.55 - 0.035, width, height * 0.55 + 0.035, (240, 238, 234))
    return canvas.pixels()
