"""Observations of engines that know the depth: the twin's. Depth is along the optical axis, not along the ray."""

from dataclasses import dataclass

import gymnasium as gym
import numpy as np

from sanawm_env.episode import Episode
from sanawm_env.observations import VIEWS, View, last_frame, make_view
from world_model.config import WorldConfig
from world_model.errors import InputError

FARTHEST = 40.0  # metres: what nothing is drawn at has this depth


@dataclass(frozen=True)
class Depth:
    """Box(H, W, 1) float32: metres from the camera's plane to what each pixel shows."""

    decodes = False

    def space(self, config: WorldConfig, with_goal: bool) -> gym.Space:
        return gym.spaces.Box(0, FARTHEST, (config.tokenizer.height, config.tokenizer.width, 1), np.float32)

    def observe(self, episode: Episode, space: gym.Space) -> np.ndarray:
        return episode.signals["depth"].copy()


@dataclass(frozen=True)
class Rgbd:
    """Dict: `pixels` (H, W, 3) uint8, the last frame; `depth` (H, W, 1) float32, metres."""

    decodes = True

    def space(self, config: WorldConfig, with_goal: bool) -> gym.Space:
        height, width = config.tokenizer.height, config.tokenizer.width
        pixels = gym.spaces.Box(0, 255, (height, width, 3), np.uint8)
        return gym.spaces.Dict({"pixels": pixels, "depth": Depth().space(config, with_goal)})

    def observe(self, episode: Episode, space: gym.Space) -> dict[str, np.ndarray]:
        return {"pixels": last_frame(episode), "depth": episode.signals["depth"].copy()}


DEPTH_VIEWS: dict[str, type[Depth] | type[Rgbd]] = {"depth": Depth, "rgbd": Rgbd}


def make_twin_view(obs: str) -> tuple[View, bool]:
    """An observation of the twin by name, and whether it shows depth. Raises InputError."""
    if obs in DEPTH_VIEWS:
        return DEPTH_VIEWS[obs](), True
    if obs == "latent":
        raise InputError(
            "obs: expected pixels or depth from a twin, which has no latents, got 'latent'; a tokenizer encodes its "
            "frames: WorldModel.tokenizer.encode"
        )
    if obs not in VIEWS:
        raise InputError(f"obs: expected one of {sorted({*VIEWS, *DEPTH_VIEWS} - {'latent'})}, got {obs!r}")
    return make_view(obs), False
