"""Track path: take the camera along poses that are given, one a step. How well does it go where it is told?"""

import math
from dataclasses import dataclass

import gymnasium as gym
import numpy as np

from sanawm_env import se3
from sanawm_env.episode import Episode
from sanawm_env.tasks.poses import apart, check_positive, check_rigid, seen_from
from sanawm_env.tasks.task import notes_of
from sanawm_env.verdict import Verdict
from world_model.config import WorldConfig
from world_model.errors import InputError

UNBOUNDED = float(np.finfo(np.float32).max)  # Gymnasium's checker warns of infinite bounds
HELD = 4  # steps that a drawn path holds one command
BACK = 1 / 3  # of the speed ahead: how fast a drawn path goes back


@dataclass(frozen=True, kw_only=True)
class TrackPath:
    """Be at pose k of a path after step k.

    The path is `reset(options={"path": poses})`, poses (S, 4, 4) camera-to-world relative to the start frame, one a
    step; without it, `steps` poses are drawn from the world's seed: ahead or back at up to `speed` m/s, turning at up
    to `turn` rad/s, level, `seconds` a step (nano's), so that every control can follow.

    A step that ends metres and radians beside its pose pays exp(-metres / `near` - radians / `near_turn`): 1 on the
    path, 0.37 one `near` beside it. The last pose ends the episode, which is a success if the means of both over the
    path were within `near` and `near_turn`. "dict" observations show `path` (`ahead`, 9) float32: the coming poses as
    the camera sees them, positions and first two columns of rotations; beyond its end the last one again.
    """

    near: float = 0.25
    near_turn: float = math.radians(10)
    steps: int = 32
    speed: float = 0.6
    turn: float = math.radians(30)
    seconds: float = 0.25
    ahead: int = 4
    needs_goal = False
    options = ("path",)
    pictures = ()

    def __post_init__(self) -> None:
        check_positive(near=self.near, near_turn=self.near_turn, speed=self.speed, turn=self.turn, seconds=self.seconds)
        for name in ("steps", "ahead"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: expected an integer >= 1, got {getattr(self, name)}")

    def begin(self, episode: Episode) -> Verdict:
        path = self.draw(episode.world_seed)
        if "path" in episode.aims:
            path = check_rigid("path", episode.aims["path"])
            if path.ndim != 3:
                raise InputError(f"path: expected poses (S, 4, 4), one a step, got {path.shape}")
        notes = {"path": path, "error": np.zeros(2)}
        return Verdict(reward=0.0, terminated=False, is_success=False, notes=notes)

    def judge(self, before: Episode, after: Episode) -> Verdict:
        notes = notes_of(before, "path", "error")
        path = notes["path"]
        metres, radians = apart(after.pose, path[after.steps - 1])
        error = notes["error"] + [metres, radians]  # (2,) sums so far
        ended = after.steps >= len(path)
        success = bool(ended and (error / len(path) <= [self.near, self.near_turn]).all())
        return Verdict(
            reward=math.exp(-metres / self.near - radians / self.near_turn),
            terminated=ended,
            is_success=success,
            notes={"path": path, "error": error},
        )

    def draw(self, seed: int) -> np.ndarray:
        """The path (steps, 4, 4) of a seed: piecewise constant forward speed and yaw rate."""
        rng = np.random.default_rng([seed, self.steps])
        twists = np.zeros((self.steps, 6))
        count = math.ceil(self.steps / HELD)
        twists[:, 2] = np.repeat(rng.uniform(-BACK, 1, count) * self.speed, HELD)[: self.steps]
        twists[:, 4] = np.repeat(rng.uniform(-1, 1, count) * self.turn, HELD)[: self.steps]
        return se3.integrate(np.eye(4), twists, 1 / self.seconds)

    def spaces(self, config: WorldConfig) -> dict[str, gym.Space]:
        reach = np.tile(np.array([UNBOUNDED] * 3 + [1.0] * 6, np.float32), (self.ahead, 1))
        return {"path": gym.spaces.Box(-reach, reach, dtype=np.float32)}

    def show(self, episode: Episode) -> dict[str, np.ndarray]:
        path = notes_of(episode, "path")["path"]
        coming = np.minimum(episode.steps + np.arange(self.ahead), len(path) - 1)
        return {"path": seen_from(episode.pose, path[coming])}
