"""Controls: what an action means. One small class a control; each turns an action into the poses of a step.

A control has no state: what a keyboard remembers from step to step (`Held`) is passed in and out, so that worlds may
be forked and restored. Poses are camera-to-world (4, 4), OpenCV axes, metres. F: frames of a step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike

from sanawm_env import se3
from sanawm_env.actions import MAX_SPEED, MAX_TURN, check_action, twist_limits
from sanawm_env.keys import FRAME, KEYBOARDS, Held, move, press
from sanawm_env.limits import Limits
from world_model.errors import InputError

FORWARD, YAW = 2, 4  # indices in a twist


@runtime_checkable
class Control(Protocol):
    """What the environment asks of a control. `path` raises InputError for an action that it cannot read."""

    def space(self, frames: int) -> gym.Space:
        """The actions of a step of so many frames."""
        ...

    def path(
        self, action: ArrayLike, pose: np.ndarray, held: Held, frames: int, fps: float, limits: Limits
    ) -> tuple[np.ndarray, Held]:
        """Poses (F, 4, 4) of the coming frames, each within the limits, and the keyboard after them."""
        ...


@dataclass(frozen=True, kw_only=True)
class Twist:
    """Box(6): velocity and turn rate in the camera's own axes, held for the whole step.

    max_speed: m/s along x, y, z at an action of 1; max_turn: rad/s about x, y, z; one number means all three axes.
    """

    max_speed: float | Sequence[float] = MAX_SPEED
    max_turn: float | Sequence[float] = MAX_TURN
    scale: np.ndarray = field(init=False, repr=False, compare=False)  # (6,) the twist of an action of ones

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", twist_limits(self.max_speed, self.max_turn))

    def space(self, frames: int) -> gym.Space:
        return gym.spaces.Box(-1, 1, self._shape(frames), np.float32)

    def path(
        self, action: ArrayLike, pose: np.ndarray, held: Held, frames: int, fps: float, limits: Limits
    ) -> tuple[np.ndarray, Held]:
        twists = self._twists(check_action(action, self._shape(frames)), frames) * self.scale  # (F, 6)
        poses = []
        for twist in twists:
            pose = limits.hold(se3.integrate(pose, twist[None], fps)[0])
            poses.append(pose)
        return np.stack(poses), Held()

    def _shape(self, frames: int) -> tuple[int, ...]:
        return (6,)

    def _twists(self, action: np.ndarray, frames: int) -> np.ndarray:
        return np.tile(action, (frames, 1))


@dataclass(frozen=True, kw_only=True)
class Planar(Twist):
    """Box(2): ahead and yaw, as a robot on wheels drives. The limits are those of the twist's z and y axes."""

    def _shape(self, frames: int) -> tuple[int, ...]:
        return (2,)

    def _twists(self, action: np.ndarray, frames: int) -> np.ndarray:
        twist = np.zeros(6)
        twist[[FORWARD, YAW]] = action
        return np.tile(twist, (frames, 1))


@dataclass(frozen=True, kw_only=True)
class Chunked(Twist):
    """Box(F, 6): a twist for every frame of the step."""

    def _shape(self, frames: int) -> tuple[int, ...]:
        return (frames, 6)

    def _twists(self, action: np.ndarray, frames: int) -> np.ndarray:
        return action


@dataclass(frozen=True, kw_only=True)
class Keys:
    """MultiBinary(8): keys held for the whole step, with the meaning of action strings of a version.

    Ahead, back, right, left, turn right, turn left, look up, look down. A step of keys equals the string that holds
    them as long. Speeds are the version's own, and it counts frames at 16 a second.
    """

    version: str = "v2"

    def __post_init__(self) -> None:
        if self.version not in KEYBOARDS:
            raise InputError(f"control: expected a version out of {sorted(KEYBOARDS)}, got {self.version!r}")

    @property
    def letters(self) -> str:
        """The key of each number of an action."""
        return "".join(KEYBOARDS[self.version].axes)

    def space(self, frames: int) -> gym.Space:
        return gym.spaces.MultiBinary(len(self.letters))

    def path(
        self, action: ArrayLike, pose: np.ndarray, held: Held, frames: int, fps: float, limits: Limits
    ) -> tuple[np.ndarray, Held]:
        keyboard, keys, poses = KEYBOARDS[self.version], self._pressed(np.asarray(action)), []
        if fps * FRAME != 1:
            raise InputError(f"control 'keys': expected a model of {1 / FRAME:.0f} frames a second, got {fps}")
        for _ in range(frames):
            held = press(held, keys, keyboard)
            pose = limits.hold(move(pose, held, keyboard))
            poses.append(pose)
        return np.stack(poses), held

    def _pressed(self, action: np.ndarray) -> frozenset[str]:
        whole = np.issubdtype(action.dtype, np.integer) or action.dtype == bool
        if action.shape != (len(self.letters),) or not whole or not np.isin(action, (0, 1)).all():
            raise InputError(
                f"action: expected ({len(self.letters)},) of 0 and 1, got {action.shape} {action.dtype} "
                f"{action.tolist()}"
            )
        return frozenset(letter for letter, down in zip(self.letters, action, strict=True) if down)


@dataclass(frozen=True, kw_only=True)
class OneKey(Keys):
    """Discrete(9): 0 holds no key, 1 to 8 one of `Keys`, in its order."""

    def space(self, frames: int) -> gym.Space:
        return gym.spaces.Discrete(1 + len(self.letters))

    def _pressed(self, action: np.ndarray) -> frozenset[str]:
        count = 1 + len(self.letters)
        if action.shape != () or not np.issubdtype(action.dtype, np.integer) or not 0 <= action < count:
            raise InputError(
                f"action: expected an integer from 0 to {count - 1}, got {action.tolist()} of {action.shape} "
                f"{action.dtype}"
            )
        return frozenset(self.letters[action - 1] if action else "")


TWISTS: dict[str, type[Twist]] = {"twist": Twist, "planar": Planar, "chunked": Chunked}
KEYS: dict[str, Callable[[], Keys]] = {
    "keys": Keys,
    "keys-v1": partial(Keys, version="v1"),
    "discrete": OneKey,
    "discrete-v1": partial(OneKey, version="v1"),
}


def make_control(
    control: str | Control, max_speed: float | Sequence[float] | None, max_turn: float | Sequence[float] | None
) -> Control:
    """A control by name, with these limits if it has limits, or the user's own as it is. Raises InputError."""
    limits = {"max_speed": max_speed, "max_turn": max_turn}
    given = {name: value for name, value in limits.items() if value is not None}
    if isinstance(control, str) and control in TWISTS:
        return TWISTS[control](**given)
    if (isinstance(control, type | str) and control not in KEYS) or not isinstance(control, str | Control):
        names = sorted([*TWISTS, *KEYS])
        raise InputError(f"control: expected one of {names} or an object with space and path, got {control!r}")
    if given:
        raise InputError(f"{next(iter(given))}: expected with a control out of {sorted(TWISTS)}, got {control!r}")
    return KEYS[control]() if isinstance(control, str) else control
