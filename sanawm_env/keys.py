"""Keyboard action strings: "w-40,jw-20,none-8" holds w for 40 frames, j and w for 20, nothing for 8.

Two versions with one grammar are in use, and the same string means different paths in them, so name the version
(spec: streaming 10.1). "v1": diffusers 0.42.1 and the first release; "v2": the current release.

Poses are camera-to-world (c2w, 4x4), OpenCV axes (x right, y down, z forward), metres, relative to the first.
"""

import dataclasses
import math
import re
from dataclasses import dataclass

import numpy as np

from sanawm_env import se3
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


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a keyboard remembers from frame to frame: the keys that are down, and how fast each axis moves.

    speeds: forward, right, yaw and pitch, in units of the keyboard's move and turn.
    """

    keys: frozenset[str] = frozenset()
    speeds: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)


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
    if smooth is not None:
        keyboard = dataclasses.replace(keyboard, smooth=smooth)
    poses, held = [np.eye(4)], Held()
    for keys in held_keys(text, keyboard):
        held = press(held, keys, keyboard)
        poses.append(move(poses[-1], held, keyboard))
    return np.stack(poses).astype(np.float32)


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


def press(before: Held, keys: frozenset[str], keyboard: Keyboard) -> Held:
    """The keyboard one frame later, with `keys` down.

    Smoothed, a released axis coasts, but any fresh press takes all axes to their targets at once.
    """
    speeds = []
    for now, (plus, minus) in zip(before.speeds, keyboard.axes, strict=True):
        target = float(plus in keys) - float(minus in keys)
        share = 1.0 if keys - before.keys or not keyboard.smooth else PRESS if target else COAST
        speeds.append(now + (target - now) * share)
    return Held(keys=keys, speeds=tuple(speeds))


def move(pose: np.ndarray, held: Held, keyboard: Keyboard) -> np.ndarray:
    """The pose (4, 4) one frame later: yaw about the world's vertical, pitch about the camera's x, moves horizontal.

    A camera that is beyond the pitch limit already may turn back only.
    """
    forward, right, yaw, up = held.speeds
    ahead = pose[:3, 2]
    pitch = math.atan2(-ahead[1], math.hypot(ahead[0], ahead[2]))
    wanted, limit = pitch + up * keyboard.turn, max(keyboard.pitch_limit, abs(pitch))
    if abs(wanted) > limit:
        wanted = math.copysign(limit, wanted) if keyboard.saturate else pitch
    after = np.eye(4)
    rotation = se3.nearest_rotation(_turn_y(yaw * keyboard.turn) @ pose[:3, :3] @ _turn_x(wanted - pitch))
    ahead, aside = (_horizontal(rotation[:, column], keyboard.epsilon) for column in (2, 0))
    after[:3, :3] = rotation
    after[:3, 3] = pose[:3, 3] + keyboard.move * (forward * ahead + right * aside)
    return after


def _horizontal(direction: np.ndarray, epsilon: float) -> np.ndarray:
    flat = direction * [1, 0, 1]
    return flat / (np.linalg.norm(flat) + epsilon)


def _turn_y(angle: float) -> np.ndarray:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _turn_x(angle: float) -> np.ndarray:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
