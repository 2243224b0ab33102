"""Image goal: get to where a picture was taken."""

import math
from dataclasses import dataclass

import gymnasium as gym
import numpy as np

from sanawm_env.episode import Episode
from sanawm_env.tasks.poses import apart, check_positive, check_rigid
from sanawm_env.tasks.task import notes_of
from sanawm_env.verdict import Verdict
from world_model.config import WorldConfig
from world_model.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ImageGoal:
    """Reach the view that a picture shows.

    The picture is `reset(options={"goal_image": ..., "goal_pose": ...})`, or a goal view of the start scene: a true
    rendering from a place that a camera can fly to, with its pose. It should have the lens of the start picture.

    With a pose, success is to be within `distance` metres and `angle` radians of it, and a step pays by how much
    metres + `metres_a_radian` x radians shrank. Without one, the picture is all there is: success is a cosine
    similarity of at least `similarity` between the latents of the picture and of what the camera sees, averaged over
    the picture, and a step pays by how much it grew; engines without latents raise. Either way arriving pays `bonus`
    more and ends the episode. "dict" and "pictures" observations show `goal_image`, none the pose.
    """

    distance: float = 0.4
    angle: float = math.radians(20)
    similarity: float = 0.5
    metres_a_radian: float = 0.5
    bonus: float = 1.0
    needs_goal = False
    options = ("goal_image", "goal_pose")
    pictures = ("goal_image",)

    def __post_init__(self) -> None:
        check_positive(distance=self.distance, angle=self.angle, metres_a_radian=self.metres_a_radian)
        if not 0 < self.similarity < 1:
            raise InputError(f"similarity: expected a number between 0 and 1, got {self.similarity}")
        if not 0 <= self.bonus < np.inf:
            raise InputError(f"bonus: expected a number >= 0, got {self.bonus}")

    def begin(self, episode: Episode) -> Verdict:
        aims = episode.aims
        if "goal_image" not in aims:
            raise InputError(
                "task 'image-goal': expected options['goal_image'] or a start scene with goal views, got neither"
            )
        notes = {"goal_image": aims["goal_image"]}
        if "goal_pose" in aims:
            notes["goal_pose"] = check_rigid("goal_pose", aims["goal_pose"])
            if notes["goal_pose"].shape != (4, 4):
                raise InputError(f"goal_pose: expected (4, 4), got {notes['goal_pose'].shape}")
        elif "goal_image_latent" in aims:
            notes["goal_latent"] = aims["goal_image_latent"]
        else:
            raise InputError("goal_pose: expected options['goal_pose'] where nothing has latents to compare, got none")
        return Verdict(reward=0.0, terminated=False, is_success=self._is_there(episode, notes), notes=notes)

    def judge(self, before: Episode, after: Episode) -> Verdict:
        notes = dict(notes_of(before, "goal_image"))
        arrived = self._is_there(after, notes)
        nearer = self._nearness(after, notes) - self._nearness(before, notes)
        return Verdict(reward=nearer + self.bonus * arrived, terminated=arrived, is_success=arrived, notes=notes)

    def spaces(self, config: WorldConfig) -> dict[str, gym.Space]:
        shape = config.tokenizer.height, config.tokenizer.width, 3
        return {"goal_image": gym.spaces.Box(0, 255, shape, np.uint8)}

    def show(self, episode: Episode) -> dict[str, np.ndarray]:
        return {"goal_image": notes_of(episode, "goal_image")["goal_image"].copy()}

    def _is_there(self, episode: Episode, notes: dict[str, np.ndarray]) -> bool:
        if "goal_pose" not in notes:
            return self._nearness(episode, notes) >= self.similarity
        metres, radians = apart(episode.pose, notes["goal_pose"])
        return metres <= self.distance and radians <= self.angle

    def _nearness(self, episode: Episode, notes: dict[str, np.ndarray]) -> float:
        """What a step pays for: metres that are left, negative, or the similarity."""
        if "goal_pose" in notes:
            metres, radians = apart(episode.pose, notes["goal_pose"])
            return -metres - self.metres_a_radian * radians
        if episode.latent is None:
            raise InputError("task 'image-goal' without a pose: expected an engine with latents, got one without")
        return similarity(episode.latent, notes["goal_latent"])


def similarity(one: np.ndarray, other: np.ndarray) -> float:
    """Cosine similarity of latents (C, Y, X), each averaged over the picture: cell by cell they agree only when pixels
    do."""
    a, b = (latent.mean(axis=(1, 2), dtype=np.float64) for latent in (one, other))
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))
