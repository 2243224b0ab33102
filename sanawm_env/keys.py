"""Keyboard action strings: "w-40,jw-20,none-8" holds w for 40 frames, j and w for 20, nothing for 8.

Two versions with one grammar are in use, and the same string means different paths in them, so name the version
(spec: streaming 10.1). "v1": diffusers 0.42.1 and the first release; "v2": the current release.

Poses are camera-to-world (c2w, 4x4), OpenCV axes (x right, y down, z forward), metres, relative to the first.
"""

import math
import re
from dataclasses import dataclass

import numpy as np

from world_model.errors import InputError

FRAME = 1 / 16  # seconds: the strings count frames at 16 a second
PRESS, COAST = (1 - math.exp(-FRAME / tau) for tau in (0.45, 1.0))  # share of the way to the target in one frame


@dataclass(frozen=True, kw_only=True)
class Keyboard:
    """What keys mean. Each pair of letters is the positive and the negative key of one axis."""

    forward: str = "ws"
    right: str
    yaw_right: str
    pitch_up: str = "ik"
    move: float  # metres a frame
    turn: float  # radians a frame
    pitch_limit: float  # radians
    saturate: bool  # at the limit: stop there, or drop the whole turn that would pass it
    smooth: bool  # a released axis coasts to a stop
    epsilon: float  # beside the norm of the horizontal direction

    @property
    def axes(self) -> tuple[str, str, str, str]:
        return self.forward, self.right, self.yaw_right, self.pitch_up


KEYBOARDS = {
    "v1": Keyboard(
        right="da",
        yaw_right="lj",
        move=0.05,
        turn=math.radians(1.2),
        pitch_limit=math.radians(85),
        saturate=False,
        smooth=False,
        epsilon=0.0,
    ),
    "v2": Keyboard(
        right="lj",
        yaw_right="da",
        move=0.025,
        turn=math.radians(0.6),
        pitch_limit=math.radians(60),
        saturate=True,
        smooth=True,
        epsilon=1e-6,
    ),
}


def parse_action_string(text: str, version: str = "v2", *, smooth: bool | None = None) -> np.ndarray:
    """Poses (n + 1, 4, 4) float32 of a string of n frames, the identity first.

    smooth: overrides the version's own. Raises InputError that names the segment it cannot read.
    """
    if version not in KEYBOARDS:
        raise InputError(f"action string version: expected one of {sorted(KEYBOARDS)}, got {version!r}")
    keyboard = KEYBOARDS[version]
    held = held_keys(text, keyboard)
    speeds = key_speeds(held, keyboard, keyboard.smooth if smooth is None else smooth)
    return integrate_speeds(speeds, keyboard).astype(np.float32)


def held_keys(text: str, keyboard: Keyboard) -> list[frozenset[str]]:
    """The keys that are down in each frame. Case, white space and full-width commas do not matter."""
    letters = set("".join(keyboard.axes))
    held = []
    for segment in re.sub(r"\s", "", text).lower().replace("\uff0c", ",").split(","):
        match = re.fullmatch(r"([a-z]+)-([0-9]+)", segment)
        keys = set(match[1] if match and match[1] != "none" else "")
        if match is None or not keys <= letters or int(match[2]) == 0:
            raise InputError(
                f"action string: expected <keys>-<frames> with keys out of {''.join(sorted(letters))} or 'none' and "
                f"at least one frame, got {segment!r} in {text!r}"
            )
        held += [frozenset(keys)] * int(match[2])
    return held


def key_speeds(held: list[frozenset[str]], keyboard: Keyboard, smooth: bool) -> np.ndarray:
    """Forward, right, yaw and pitch (n, 4) of each frame, in units of the keyboard's move and turn.

    Smoothed, a released axis coasts, but any fresh press takes all axes to their targets at once.
    """
    speeds = np.zeros((len(held), 4))
    before: frozenset[str] = frozenset()
    now = np.zeros(4)
    for frame, keys in enumerate(held):
        for axis, (plus, minus) in enumerate(keyboard.axes):
            target = float(plus in keys) - float(minus in keys)
            share = 1.0 if keys - before or not smooth else PRESS if target else COAST
            now[axis] += (target - now[axis]) * share
        speeds[frame] = now
        before = keys
    return speeds


def integrate_speeds(speeds: np.ndarray, keyboard: Keyboard) -> np.ndarray:
    """Poses (n + 1, 4, 4) float64: yaw about the world's vertical, pitch about the camera's x, moves horizontal."""
    poses = np.tile(np.eye(4), (len(speeds) + 1, 1, 1))
    pitch = 0.0
    for frame, (forward, right, yaw, up) in enumerate(speeds):
        wanted = pitch + up * keyboard.turn
        if abs(wanted) > keyboard.pitch_limit:
            wanted = math.copysign(keyboard.pitch_limit, wanted) if keyboard.saturate else pitch
        rotation = _turn_y(yaw * keyboard.turn) @ poses[frame, :3, :3] @ _turn_x(wanted - pitch)
        pitch = wanted
        ahead, aside = (_horizontal(rotation[:, column], keyboard.epsilon) for column in (2, 0))
        poses[frame + 1, :3, :3] = rotation
        poses[frame + 1, :3, 3] = poses[frame, :3, 3] + keyboard.move * (forward * ahead + right * aside)
    return poses


def _horizontal(direction: np.ndarray, epsilon: float) -> np.ndarray:
    flat = direction * [1, 0, 1]
    return flat / (np.linalg.norm(flat) + epsilon)


def _turn_y(angle: float) -> np.ndarray:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _turn_x(angle: float) -> np.ndarray:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
