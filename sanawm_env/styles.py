"""The fixed palettes and words of the procedural rooms: what may stand together, and its colours.

Rooms are muted, goals are saturated: no wall, floor or piece of furniture has a goal's colour.
"""

from dataclasses import dataclass

Colour = tuple[int, int, int]

WALL_COLOURS: dict[str, tuple[Colour, Colour]] = {  # base, contrast
    "white": ((232, 230, 224), (188, 196, 202)),
    "cream": ((231, 216, 184), (200, 172, 130)),
    "grey": ((178, 181, 184), (128, 134, 142)),
    "green": ((172, 190, 160), (118, 144, 112)),
    "blue": ((158, 182, 204), (106, 134, 164)),
    "pink": ((222, 190, 182), (188, 138, 132)),
    "brown": ((182, 146, 112), (134, 100, 74)),
}
FLOOR_COLOURS: dict[str, tuple[Colour, Colour]] = {
    "brown": ((164, 120, 82), (128, 90, 60)),
    "dark": ((104, 78, 60), (74, 56, 46)),
    "grey": ((158, 158, 156), (112, 114, 118)),
    "white": ((218, 214, 206), (150, 152, 154)),
    "black": ((206, 202, 194), (62, 62, 66)),
    "blue": ((122, 142, 168), (88, 106, 134)),
    "green": ((132, 152, 122), (96, 118, 92)),
}
DOOR_COLOURS: dict[str, Colour] = {
    "brown": (122, 82, 54),
    "white": (240, 238, 232),
    "blue": (70, 104, 148),
    "green": (78, 118, 92),
    "grey": (96, 102, 110),
    "black": (52, 52, 56),
}
WOOD: tuple[Colour, ...] = ((150, 104, 66), (112, 76, 50), (196, 160, 112), (226, 222, 214), (70, 62, 58))
FABRIC: tuple[Colour, ...] = ((96, 116, 142), (142, 94, 84), (110, 128, 104), (126, 122, 118), (196, 180, 148))
BOOKS: tuple[Colour, ...] = ((148, 70, 62), (64, 92, 126), (186, 158, 92), (86, 120, 92), (206, 200, 190))
GOAL_COLOURS: dict[str, Colour] = {
    "red": (228, 18, 22),
    "green": (16, 196, 40),
    "blue": (20, 50, 236),
    "yellow": (250, 222, 8),
    "purple": (170, 20, 206),
    "orange": (252, 118, 6),
}
GOAL_SHAPES = {"ball": "sphere", "cone": "cone", "barrel": "cylinder", "cube": "box"}
FURNITURE = {  # name: plural
    "table": "tables",
    "chair": "chairs",
    "sofa": "sofas",
    "shelf": "shelves",
    "cabinet": "cabinets",
    "bed": "beds",
    "lamp": "lamps",
    "box": "boxes",
    "plant": "plants",
    "column": "columns",
}
FEATURES = {"door": "doors", "doorway": "doorways", "window": "windows", "picture": "pictures", "rug": "rugs"}
COUNTS = ("no", "a", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
GRAMMAR = ("and", "floor", "room", "walls", "with", "an")
LIGHTS: dict[str, tuple[float, float, float]] = {
    "warm": (1.0, 0.95, 0.86),
    "plain": (1.0, 1.0, 1.0),
    "cool": (0.91, 0.96, 1.0),
    "dim": (0.84, 0.82, 0.8),
}


@dataclass(frozen=True, kw_only=True)
class Style:
    """What a kind of room draws from: wall patterns and colours, floor patterns and colours, furniture."""

    walls: tuple[str, ...]
    wall_colours: tuple[str, ...]
    floors: tuple[str, ...]
    floor_colours: tuple[str, ...]
    furniture: tuple[str, ...]


STYLES = {
    "home": Style(
        walls=("striped", "panelled"),
        wall_colours=("cream", "green", "pink", "blue"),
        floors=("wooden",),
        floor_colours=("brown", "dark"),
        furniture=("table", "chair", "sofa", "shelf", "cabinet", "bed", "lamp", "plant"),
    ),
    "bath": Style(
        walls=("tiled",),
        wall_colours=("white", "blue", "green"),
        floors=("tiled", "checkered"),
        floor_colours=("white", "blue", "black"),
        furniture=("cabinet", "chair", "box", "plant", "shelf", "lamp"),
    ),
    "hall": Style(
        walls=("brick", "panelled"),
        wall_colours=("brown", "grey", "white"),
        floors=("checkered", "tiled"),
        floor_colours=("black", "grey", "white"),
        furniture=("column", "box", "table", "plant", "sofa", "chair"),
    ),
    "office": Style(
        walls=("banded", "striped"),
        wall_colours=("white", "grey", "blue", "green"),
        floors=("carpeted", "tiled"),
        floor_colours=("grey", "blue", "green"),
        furniture=("table", "chair", "shelf", "cabinet", "box", "lamp", "plant"),
    ),
    "studio": Style(
        walls=("banded", "brick", "striped"),
        wall_colours=("cream", "pink", "white", "brown"),
        floors=("wooden", "checkered"),
        floor_colours=("brown", "dark"),
        furniture=("table", "box", "sofa", "column", "shelf", "lamp", "bed"),
    ),
}


def vocabulary() -> list[str]:
    """Every word that a caption can hold, sorted."""
    words = set(GRAMMAR) | set(COUNTS) | set(WALL_COLOURS) | set(FLOOR_COLOURS) | set(DOOR_COLOURS)
    words |= set(GOAL_COLOURS) | set(GOAL_SHAPES) | set(FURNITURE) | set(FURNITURE.values())
    words |= set(FEATURES) | set(FEATURES.values())
    for style in STYLES.values():
        words |= set(style.walls) | set(style.floors)
    return sorted(words - {"no"})
