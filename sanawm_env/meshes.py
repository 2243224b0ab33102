"""Triangle meshes of a scene with one texture atlas. Pure numpy; render.py hands the result to PyBullet.

A front side shows its corners counter-clockwise; texture coordinates have (0, 0) at the lower left.
"""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from sanawm_env.furniture import Part
from sanawm_env.paint import mix, paint_ceiling, paint_floor, paint_view, paint_wall
from sanawm_env.scenes import WALLS, Feature, Scene, on_wall, wall_width
from sanawm_env.styles import GOAL_COLOURS, GOAL_SHAPES, Colour

# Metres that surfaces run on behind each other, so that no seam shows: walls past their corners, and the
# insides of openings around these.
OVERLAP, LIP = 0.03, 0.005
ATLAS_WIDTH = 1200
UP = np.array([0.0, 0.0, 1.0])


class Atlas:
    """Many small textures in one picture, so that a room is one body and one texture."""

    def __init__(self):
        self._images: list[tuple[int, int, np.ndarray]] = []
        self._x = self._y = self._row = 0
        self._patches: dict[tuple, np.ndarray] = {}

    def add(self, image: np.ndarray) -> np.ndarray:
        """Place an image uint8 (h, w, 3); returns its [left, top, right, bottom] in texels, half a texel inset."""
        h, w = image.shape[:2]
        if self._x + w > ATLAS_WIDTH:
            self._x, self._y, self._row = 0, self._y + self._row, 0
        self._images.append((self._x, self._y, image))
        rect = np.array([self._x + 0.5, self._y + 0.5, self._x + w - 0.5, self._y + h - 0.5])
        self._x, self._row = self._x + w, max(self._row, h)
        return rect

    def patch(self, colour: Colour) -> np.ndarray:
        """A rectangle of one colour."""
        key = tuple(round(c) for c in colour)
        if key not in self._patches:
            self._patches[key] = self.add(np.full((4, 4, 3), key, np.uint8))
        return self._patches[key]

    def image(self) -> np.ndarray:
        """The whole atlas, uint8 (h, w, 3)."""
        out = np.zeros((self._y + self._row, ATLAS_WIDTH, 3), np.uint8)
        for x, y, image in self._images:
            out[y : y + image.shape[0], x : x + image.shape[1]] = image
        return out


@dataclass
class Mesh:
    """Vertices, normals, texels and triangles of one body, as they are collected."""

    vertices: list[np.ndarray] = field(default_factory=list)
    normals: list[np.ndarray] = field(default_factory=list)
    texels: list[np.ndarray] = field(default_factory=list)
    triangles: list[np.ndarray] = field(default_factory=list)

    def add(self, vertices: np.ndarray, normals: np.ndarray, texels: np.ndarray, triangles: np.ndarray) -> None:
        """Append n vertices (n, 3), normals (n, 3), texel positions (n, 2) and triangles (m, 3)."""
        first = sum(len(v) for v in self.vertices)
        self.vertices.append(np.asarray(vertices, float))
        self.normals.append(np.asarray(normals, float))
        self.texels.append(np.asarray(texels, float))
        self.triangles.append(np.asarray(triangles) + first)

    def quad(self, corner: np.ndarray, right: np.ndarray, up: np.ndarray, rect: np.ndarray) -> None:
        """A rectangle from its lower left corner and its two sides as seen from the front."""
        corners = np.stack([corner, corner + right, corner + right + up, corner + up])
        normal = np.cross(right, up)
        left, top, right_, bottom = rect
        texels = [[left, bottom], [right_, bottom], [right_, top], [left, top]]
        normals = np.tile(normal / np.linalg.norm(normal), (4, 1))
        self.add(corners, normals, np.array(texels), np.array([[0, 1, 2], [0, 2, 3]]))

    def solid(self, part: Part, rect: np.ndarray) -> None:
        """A box, cylinder, sphere or cone in one colour patch."""
        if part.shape == "box":
            vertices, normals, triangles = _box()
        else:
            vertices, normals, triangles = _turned(part.shape)
        vertices = np.multiply(vertices, np.divide(part.size, 2)) + part.centre
        middle = np.array([(rect[0] + rect[2]) / 2, (rect[1] + rect[3]) / 2])
        self.add(vertices, normals, np.tile(middle, (len(vertices), 1)), triangles)

    def arrays(self, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """vertices (n, 3), normals (n, 3), uv (n, 2) for an atlas of that height, triangles (m, 3)."""
        uv = np.concatenate(self.texels) / [ATLAS_WIDTH, height]
        uv[:, 1] = 1 - uv[:, 1]
        vertices, normals = np.concatenate(self.vertices), np.concatenate(self.normals)
        return vertices, normals, uv, np.concatenate(self.triangles)


def _box() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The cube [-1, 1]^3, four vertices a face."""
    vertices, normals, triangles = [], [], []
    for axis in range(3):
        for sign in (-1, 1):
            normal, right = np.zeros(3), np.zeros(3)
            normal[axis], right[(axis + 1) % 3] = sign, sign
            up = np.cross(normal, right)
            first = len(vertices)
            vertices += [normal - right - up, normal + right - up, normal + right + up, normal - right + up]
            normals += [normal] * 4
            triangles += [[first, first + 1, first + 2], [first, first + 2, first + 3]]
    return np.array(vertices), np.array(normals), np.array(triangles)


def _turned(shape: str, sides: int = 20) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A solid of revolution about z in [-1, 1]^3, from rings of (radius, z, normal outwards, normal up)."""
    if shape == "sphere":
        t = np.linspace(-np.pi / 2, np.pi / 2, 11)
        rings = [(np.cos(a), np.sin(a), np.cos(a), np.sin(a)) for a in t]
    elif shape == "cylinder":
        rings = [(0, -1, 0, -1), (1, -1, 0, -1), (1, -1, 1, 0), (1, 1, 1, 0), (1, 1, 0, 1), (0, 1, 0, 1)]
    else:  # a cone; its tip is cut a little, so that normals stay defined
        rings = [(0, -1, 0, -1), (1, -1, 0, -1), (1, -1, 0.9, 0.44), (0.04, 1, 0.9, 0.44), (0, 1, 0, 1)]
    angle = np.arange(sides + 1) / sides * 2 * np.pi
    c, s = np.cos(angle), np.sin(angle)
    vertices = np.concatenate([np.stack([r * c, r * s, np.full_like(c, z)], 1) for r, z, _, _ in rings])
    normals = np.concatenate([np.stack([o * c, o * s, np.full_like(c, u)], 1) for _, _, o, u in rings])
    triangles = []
    for ring in range(len(rings) - 1):
        if rings[ring][:2] == rings[ring + 1][:2]:  # a crease: the same ring with two normals
            continue
        low, high = ring * (sides + 1), (ring + 1) * (sides + 1)
        for i in range(sides):
            triangles += [[low + i, low + i + 1, high + i + 1], [low + i, high + i + 1, high + i]]
    return vertices, normals, np.array(triangles)


def scene_meshes(scene: Scene) -> tuple[dict[str, Mesh], np.ndarray]:
    """The meshes "room", "furniture" and "goal" of a scene in room axes, and their atlas uint8 (h, w, 3)."""
    atlas, room, furniture, goal = Atlas(), Mesh(), Mesh(), Mesh()
    x, y, z = np.diag([*scene.size[:2], 1.0])
    room.quad(np.zeros(3), x, y, atlas.add(paint_floor(scene)))
    room.quad(y + scene.size[2] * z, x, -y, atlas.add(paint_ceiling(scene)[::-1]))
    for wall in range(4):
        _wall(room, atlas, scene, wall)
    for piece in scene.furniture:
        for part in piece.parts:
            furniture.solid(part, atlas.patch(part.colour))
    target = scene.goal
    colour = GOAL_COLOURS[target.colour]
    shape = Part(shape=GOAL_SHAPES[target.name], centre=target.centre, size=target.size, colour=colour)
    goal.solid(shape, atlas.patch(colour))
    meshes = {"goal": goal, "furniture": furniture, "room": room}  # near things first: less is drawn twice
    return {name: mesh for name, mesh in meshes.items() if mesh.vertices}, atlas.image()


def _wall(room: Mesh, atlas: Atlas, scene: Scene, wall: int) -> None:
    """One wall in cells around its openings, and what lies in the openings."""
    width, height = wall_width(scene.size, wall), scene.size[2]
    openings = [f for f in scene.features if f.wall == wall and f.name in ("doorway", "window")]
    rect = atlas.add(paint_wall(scene, wall))
    us = sorted({-OVERLAP, width + OVERLAP, *(u for f in openings for u in f.u)})
    zs = sorted({-OVERLAP, height + OVERLAP, *(z for f in openings for z in f.z if z)})
    along = np.array([*WALLS[wall][1], 0.0])
    for u0, u1 in pairwise(us):
        for z0, z1 in pairwise(zs):
            middle_u, middle_z = (u0 + u1) / 2, (z0 + z1) / 2
            if any(f.u[0] < middle_u < f.u[1] and f.z[0] < middle_z < f.z[1] for f in openings):
                continue
            left, right = np.interp([u0, u1], [0, width], [rect[0], rect[2]])
            bottom, top = np.interp([z0, z1], [0, height], [rect[3], rect[1]])
            corner = np.array([*on_wall(scene.size, wall, u0), z0])
            room.quad(corner, (u1 - u0) * along, (z1 - z0) * UP, np.array([left, top, right, bottom]))
    for opening in openings:
        _niche(room, atlas, scene, opening, along)


def _niche(room: Mesh, atlas: Atlas, scene: Scene, f: Feature, along: np.ndarray) -> None:
    """The inside of an opening: a shallow window with a view, or a passage that ends in the dark."""
    window = f.name == "window"
    depth = 0.2 if window else 1.6
    width, height = f.u[1] - f.u[0] + 2 * LIP, f.z[1] - f.z[0] + 2 * LIP
    inward = np.array([*WALLS[f.wall][2], 0.0]) * depth
    front = np.array([*on_wall(scene.size, f.wall, f.u[0] - LIP), f.z[0] - LIP])
    back, right, up = front - inward, width * along, height * UP
    if window:
        side = sill = top = atlas.patch((226, 224, 218))
        end = atlas.add(paint_view(width, height, f.art))
    else:
        wood = mix(f.colour, (120, 112, 104), 0.5)
        side, top = atlas.patch(mix(wood, (255, 255, 255), 0.25)), atlas.patch(mix(wood, (20, 20, 20), 0.2))
        sill, end = atlas.patch(mix(wood, (30, 24, 20), 0.4)), atlas.patch(mix(wood, (16, 16, 20), 0.65))
    room.quad(back, right, up, end)
    room.quad(front, right, -inward, sill)
    room.quad(back + up, right, inward, top)
    room.quad(front, -inward, up, side)
    room.quad(back + right, inward, up, side)
