"""Camera paths: smooth body twists, integrated frame by frame, that touch nothing in a room. Pure numpy.

World axes are those of the room (z up, metres). A camera pose is camera-to-world (c2w, 4x4) in OpenCV axes
(x right, y down, z forward). A twist is [vx, vy, vz, wx, wy, wz] in the camera's own axes, in m/s and rad/s:
+wy turns right, +wx looks up. T frames have T - 1 twists; twist t leads from frame t to frame t + 1, and
changes of command fall on multiples of `STEP` frames, as an agent's do.
"""

from dataclasses import dataclass

import numpy as np

from sanawm_env import se3
from world_model.errors import InputError

STEP = 4  # frames an agent holds one command
MARGIN = 0.35  # metres between the camera and anything solid
MAX_TWIST = np.array([0.6, 0.4, 1.0, np.radians(30), np.radians(45), np.radians(20)])
MAX_ELEVATION = np.radians(45)
MAX_ROLL = np.radians(18)
TEST_KINDS = ("yaw", "pitch", "forward", "strafe", "still", "random")
TRAIN_KINDS = {
    "yaw": 0.14,
    "pitch": 0.05,
    "forward": 0.11,
    "strafe": 0.06,
    "vertical": 0.04,
    "still": 0.03,
    "drive": 0.14,
    "orbit": 0.05,
    "random": 0.12,
    "jitter": 0.06,
    "mixed": 0.10,
    "return": 0.10,
}


@dataclass(frozen=True, kw_only=True)
class Space:
    """Where a camera may be: inside one axis-aligned room and outside axis-aligned boxes, in metres.

    lo, hi: (3,) corners of the room. boxes: (N, 2, 3) lower and upper corners of solid things.
    """

    lo: np.ndarray
    hi: np.ndarray
    boxes: np.ndarray

    def clearance(self, points: np.ndarray) -> np.ndarray:
        """Distance in metres from points (n, 3) to the nearest wall or box; <= 0 where a point is inside one."""
        walls = np.minimum(points - self.lo, self.hi - points).min(axis=1)
        if not len(self.boxes):
            return walls
        gap = np.maximum(self.boxes[None, :, 0] - points[:, None], points[:, None] - self.boxes[None, :, 1])
        outside = np.linalg.norm(np.maximum(gap, 0), axis=-1)  # (n, N)
        inside = np.minimum(gap.max(axis=-1), 0)
        return np.minimum(walls, (outside + inside).min(axis=1))

    def sees(self, start: np.ndarray, end: np.ndarray) -> bool:
        """Whether the straight line from start (3,) to end (3,) misses all boxes that do not hold its end."""
        points = start + np.linspace(0, 1, 48)[:, None] * (end - start)
        boxes = self.boxes[(self.boxes[:, 0] > end).any(1) | (self.boxes[:, 1] < end).any(1)]
        return bool((Space(lo=self.lo, hi=self.hi, boxes=boxes).clearance(points) > 0).all())


def look(position: np.ndarray, yaw: float, elevation: float) -> np.ndarray:
    """c2w (4, 4) float64 of a camera without roll at position (3,); angles in radians from +x, above the floor."""
    forward = np.array([np.cos(yaw) * np.cos(elevation), np.sin(yaw) * np.cos(elevation), np.sin(elevation)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    c2w = np.eye(4)
    c2w[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    c2w[:3, 3] = position
    return c2w


def integrate(start: np.ndarray, twists: np.ndarray, fps: float) -> np.ndarray:
    """Poses (T, 4, 4) float64 from a start pose (4, 4) and T - 1 twists (T - 1, 6) per second."""
    return np.concatenate([start[None], se3.integrate(start, twists, fps)])


def elevation_and_roll(poses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Angles (T,) in radians above the floor and about the optical axis, of c2w poses (T, 4, 4)."""
    return np.arcsin(np.clip(poses[:, 2, 2], -1, 1)), np.arctan2(poses[:, 2, 0], -poses[:, 2, 1])


def allowed(space: Space, poses: np.ndarray) -> bool:
    """Whether poses (T, 4, 4) keep `MARGIN` from everything and neither tilt nor roll too far."""
    elevation, roll = elevation_and_roll(poses)
    level = (np.abs(elevation) <= MAX_ELEVATION).all() and (np.abs(roll) <= MAX_ROLL).all()
    return bool(level and (space.clearance(poses[:, :3, 3]) >= MARGIN).all())


def sample_start(
    space: Space, goal: np.ndarray, fov: float, rng: np.random.Generator, *, level: bool = False
) -> np.ndarray | None:
    """A start pose (4, 4) that faces into the room, with the goal (3,) in view for nine in ten; None if none fits.

    fov: horizontal field of view in radians. level: elevation within 3 degrees instead of 12.
    """
    show_goal = rng.random() < 0.92
    for _ in range(300):
        position = rng.uniform(space.lo + MARGIN, space.hi - MARGIN)
        position[2] = rng.uniform(0.9, 1.6)
        to_goal = goal - position
        distance = np.linalg.norm(to_goal[:2])
        if space.clearance(position[None])[0] < MARGIN + 0.1 or distance < 1.6:
            continue
        yaw = rng.uniform(-np.pi, np.pi)
        elevation = rng.uniform(-1, 0.5) * np.radians(3 if level else 12)
        if show_goal:
            yaw = np.arctan2(to_goal[1], to_goal[0]) + rng.uniform(-0.36, 0.36) * fov
            drop = np.arctan2(to_goal[2], distance) - elevation
            if abs(drop) > 0.4 * fov or distance > 5.5 or not space.sees(position, goal):
                continue
        ahead = position + np.linspace(0, 2.2, 12)[:, None] * [np.cos(yaw), np.sin(yaw), 0]
        if (space.clearance(ahead) > 0.05).all():
            return look(position, yaw, elevation)
    return None


def _signed(rng: np.random.Generator, low: float, high: float) -> float:
    return rng.uniform(low, high) * rng.choice([-1, 1])


def propose(kind: str, rng: np.random.Generator) -> np.ndarray:
    """One constant twist (6,) of a kind of motion, in m/s and rad/s."""
    unit = np.zeros(6)
    if kind == "mixed":
        kind = rng.choice(["yaw", "forward", "strafe", "pitch", "vertical", "still", "drive", "orbit", "random"])
    if kind == "yaw":  # as often slow as fast
        unit[4] = _signed(rng, 0.5, 1) if rng.random() < 0.5 else _signed(rng, 0.05, 0.5)
    elif kind == "pitch":
        unit[3] = _signed(rng, 0.1, 1)
    elif kind == "forward":
        unit[2] = rng.uniform(0.2, 1) * rng.choice([-1, 1], p=[0.3, 0.7])
    elif kind == "strafe":
        unit[0] = _signed(rng, 0.2, 1)
    elif kind == "vertical":
        unit[1] = _signed(rng, 0.2, 1)
    elif kind == "drive":
        unit[2], unit[4] = rng.uniform(0.2, 1), _signed(rng, 0.0, 1)
    elif kind == "orbit":  # sideways while turning back towards what was ahead
        unit[0] = _signed(rng, 0.4, 1)
        unit[4] = -np.sign(unit[0]) * rng.uniform(0.1, 0.5)
    elif kind == "random":
        unit = rng.uniform(-1, 1, 6) * (rng.random(6) < 0.5)
    elif kind == "jitter":  # what a random agent does
        unit = rng.uniform(-1, 1, 6)
    elif kind != "still":
        raise InputError(f"path kind: expected one of {sorted(TRAIN_KINDS)}, got {kind!r}")
    return unit * MAX_TWIST


def plan(space: Space, start: np.ndarray, kind: str, frames: int, fps: float, rng: np.random.Generator) -> np.ndarray:
    """Twists (frames - 1, 6) of one kind from a free start pose (4, 4): every pose of theirs is `allowed`.

    A command is held for 4 to 24 frames, on steady paths up to 80 ("jitter": 4). One that would hit something
    is drawn again; when none fits, the camera stands still for a step. "return" goes out, and back the same way.
    """
    if kind == "return":
        out = plan(space, start, rng.choice(["yaw", "drive", "random", "mixed"]), (frames + 1) // 2, fps, rng)
        rest = np.zeros((frames - 1 - 2 * len(out), 6))
        return np.concatenate([out, -out[::-1], rest])
    # Every other path keeps its directions and may hold a command for long: else turns would cancel out.
    steady = kind != "jitter" and rng.random() < 0.5
    direction = rng.choice([-1, 1], 6, p=[0.3, 0.7] if kind in ("forward", "drive") else [0.5, 0.5])
    longest = 1 if kind == "jitter" else (20 if steady else 6)
    twists = np.zeros((0, 6))
    pose = start
    while len(twists) < frames - 1:
        for attempt in range(16):
            hold = STEP * rng.integers(1, longest + 1)
            twist = propose(kind, rng)
            if steady and attempt < 8:
                twist = np.abs(twist) * direction
            segment = np.tile(twist, (min(hold, frames - 1 - len(twists)), 1))
            poses = integrate(pose, segment, fps)
            if allowed(space, poses):
                break
        else:
            segment, poses = np.zeros((min(STEP, frames - 1 - len(twists)), 6)), pose[None]
        twists, pose = np.concatenate([twists, segment]), poses[-1]
    if kind != "jitter" and rng.random() < 0.35:
        smooth = _smooth(twists)
        if allowed(space, integrate(start, smooth, fps)):
            return smooth
    return twists


def _smooth(twists: np.ndarray) -> np.ndarray:
    """Twists (n, 6) averaged over nine frames, so that commands fade into each other."""
    padded = np.pad(twists, ((4, 4), (0, 0)), mode="edge")
    return np.stack([padded[i : i + len(twists)] for i in range(9)]).mean(0)


def scripted(kind: str, frames: int, fps: float, rng: np.random.Generator) -> np.ndarray:
    """Twists (frames - 1, 6) of a test kind other than "random"; the sign is drawn, the speed is fixed.

    yaw 30 deg/s; pitch 30 deg/s up, twice as long down, and back; forward 0.6 m/s; strafe 0.4 m/s; still.
    """
    twists = np.zeros((frames - 1, 6))
    sign = rng.choice([-1.0, 1.0])
    if kind == "yaw":
        twists[:, 4] = sign * np.radians(30)
    elif kind == "pitch":
        quarter = np.arange(frames - 1) // int(fps) % 4  # seconds: the tilt stays within 30 degrees
        twists[:, 3] = sign * np.radians(30) * np.where((quarter == 0) | (quarter == 3), 1, -1)
    elif kind == "forward":
        twists[:, 2] = 0.6
    elif kind == "strafe":
        twists[:, 0] = sign * 0.4
    elif kind != "still":
        raise InputError(f"scripted path: expected one of {TEST_KINDS[:-1]}, got {kind!r}")
    return twists
