"""A visual servo made by hand: it finds the goal by its strong colour in the pixels, and steers there.

The start frame shows the goal, the one thing of strong colour. The servo remembers that colour, looks for it in every
frame, and takes the middle of what it finds for the goal's direction. It knows neither pose nor lens: it assumes the
default field of view.
"""

from dataclasses import dataclass, field

import numpy as np

from sanawm_env.evaluate.steering import Steering
from world_model.images import DEFAULT_FIELD_OF_VIEW

FAINT = 45.0  # of 255: the colour of furniture; what is not stronger is no goal
SHARE = 0.5  # of the strongest match: what is above belongs to the goal
SMALLEST = 0.0005  # of the picture: less than that is no goal


@dataclass(frozen=True, kw_only=True)
class Sight:
    """Where the goal is: direction (3,) in camera axes, and the share of the picture that it covers."""

    direction: np.ndarray
    share: float


def chroma(picture: np.ndarray) -> np.ndarray:
    """What remains of each pixel of (H, W, 3) uint8 without its brightness: (H, W, 3) float32."""
    values = picture.astype(np.float32)
    return values - values.mean(-1, keepdims=True)


def strongest_colour(picture: np.ndarray) -> np.ndarray:
    """The direction (3,) in colour space, without brightness, of the pixels (H, W, 3) of strongest colour."""
    colours = chroma(picture).reshape(-1, 3)
    strength = np.linalg.norm(colours, axis=1)
    weight = np.maximum(strength - 0.7 * strength.max(), 0) + 1e-6
    mean = (weight[:, None] * colours).sum(0)
    return mean / max(np.linalg.norm(mean), 1e-6)


def find_goal(picture: np.ndarray, colour: np.ndarray) -> Sight | None:
    """The thing of a colour (3,) in a picture (H, W, 3) uint8; None if there is too little of it."""
    match = chroma(picture) @ colour
    weight = np.maximum(match - max(FAINT, SHARE * match.max()), 0)
    share = float((weight > 0).mean())
    if share < SMALLEST:
        return None
    height, width = match.shape
    column = (weight.sum(0) @ (np.arange(width) + 0.5)) / weight.sum()
    row = (weight.sum(1) @ (np.arange(height) + 0.5)) / weight.sum()
    focal = width / 2 / np.tan(DEFAULT_FIELD_OF_VIEW / 2)
    return Sight(direction=np.array([(column - width / 2) / focal, (row - height / 2) / focal, 1.0]), share=share)


@dataclass(frozen=True, kw_only=True)
class Servo:
    """stops_at: share of the picture at which the goal counts as reached, and the servo stops."""

    steering: Steering = field(default_factory=Steering)
    stops_at: float = 1.0
    reads = "pixels"

    def begin(self, seed: int) -> "Servoing":
        return Servoing(self)


class Servoing:
    """One episode of a servo: it remembers the goal's colour and on which side it saw the goal last."""

    def __init__(self, servo: Servo) -> None:
        self.servo = servo
        self.colour: np.ndarray | None = None
        self.side = 1.0

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """An action (6,) float32 for a picture (H, W, 3) uint8."""
        if self.colour is None:
            self.colour = strongest_colour(picture)
        sight = find_goal(picture, self.colour)
        if sight is None:  # look for it where it was last
            return np.array([0, 0, 0, 0, 0.5 * self.side, 0], np.float32)
        if sight.share >= self.servo.stops_at:
            return np.zeros(6, np.float32)
        self.side = 1.0 if sight.direction[0] >= 0 else -1.0
        return self.servo.steering.towards(sight.direction)
