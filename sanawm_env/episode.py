"""What the environment knows of one running world, beside the engine's own state: one frozen value.

Poses are camera-to-world (4, 4) relative to the start frame, metres, OpenCV axes. F: frames of a step.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from sanawm_env.keys import Held
from sanawm_env.verdict import Verdict

UNJUDGED = Verdict(reward=0.0, terminated=False, is_success=False)


@dataclass(frozen=True, kw_only=True)
class Episode:
    """An episode between two steps. Its arrays are never written again: forks share them."""

    scene: str
    prompt: str
    intrinsics_source: str
    world_seed: int
    intrinsics: np.ndarray  # (4,) float32, pixels of the model's frame
    goal: np.ndarray | None  # (3,) float64, metres in the start camera's axes
    latent: np.ndarray | None  # (C, Y, X) float32, the last one; None: the engine has none
    frames: np.ndarray | None  # (F, H, W, 3) uint8 of the last step, at the start (1, H, W, 3); None: not decoded
    pose: np.ndarray = field(default_factory=lambda: np.eye(4))  # of the last frame
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(6))  # twist between the last two frames
    frame: int = 0  # index of the last frame; the start frame is 0
    steps: int = 0
    held: Held = field(default_factory=Held)
    signals: Mapping[str, np.ndarray] = field(default_factory=dict)  # what the engine tells beside pixels
    verdict: Verdict = UNJUDGED  # of the last step, with the task's notes
    aims: Mapping[str, np.ndarray] = field(default_factory=dict)  # what scene and options give `Task.begin`; then empty
