"""A small policy that reads pixels: where its features fire in the picture, and from that the camera's twist.

The coordinates of each feature's peak (a spatial softmax: Levine et al. 2016, arXiv 1504.00702, section 5.1) are what
steering at something needs, and they are learned from far fewer frames than a dense layer over all pixels.

Shapes: N worlds, H W any picture, K features, G = 32 the side that pictures are averaged to.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

GRID, FEATURES, HIDDEN = 32, 16, 64
AXES = (1, 2, 4)  # of a twist: down, ahead, yaw. It looks where it goes, upright, and what it goes to stays in view


class PixelPolicy(nn.Module):
    """Frames (N, H, W, 3) uint8 -> actions (N, 6) float32 in [-1, 1] of control "twist". Can be scripted."""

    def __init__(self) -> None:
        super().__init__()
        self.grid = GRID  # scripts know attributes, not globals
        self.look = nn.Sequential(
            nn.Conv2d(3, FEATURES, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(FEATURES, FEATURES, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(FEATURES, FEATURES, 1),
        )
        self.steer = nn.Sequential(nn.Linear(3 * FEATURES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, len(AXES)))
        nn.init.normal_(self.steer[2].weight, std=0.01)  # begins by standing almost still, whatever it sees
        nn.init.zeros_(self.steer[2].bias)
        line = torch.linspace(-1, 1, GRID // 2)
        places = torch.stack([line.repeat(GRID // 2), line.repeat_interleave(GRID // 2)], 1)
        self.register_buffer("places", places)  # (G * G / 4, 2): right and down
        self.register_buffer("axes", torch.tensor(AXES))

    def forward(self, frames: Tensor) -> Tensor:
        return self.twist(self.decide(self.shrink(frames)))

    @torch.jit.export
    def shrink(self, frames: Tensor) -> Tensor:
        """All that it sees of frames (N, H, W, 3) uint8: (N, 3, G, G) uint8, small enough to keep by the thousand."""
        return F.adaptive_avg_pool2d(frames.permute(0, 3, 1, 2).float(), self.grid).round().to(torch.uint8)

    @torch.jit.export
    def decide(self, small: Tensor) -> Tensor:
        """Shrunken frames -> the steered axes (N, 3) in [-1, 1]."""
        maps = self.look(small.float() / 127.5 - 1).flatten(2)  # (N, K, G * G / 4)
        peaks = torch.softmax(maps, 2) @ self.places  # (N, K, 2)
        return torch.tanh(self.steer(torch.cat([peaks.flatten(1), maps.amax(2)], 1)))

    @torch.jit.export
    def twist(self, steered: Tensor) -> Tensor:
        """Actions (N, 6) that hold what is steered (N, 3), cut to [-1, 1], and zero elsewhere."""
        empty = torch.zeros(len(steered), 6, dtype=steered.dtype, device=steered.device)
        return empty.index_copy(1, self.axes, steered.clamp(-1, 1))

    def save(self, path: Path) -> None:
        """Write a TorchScript file: it runs wherever torch is, without this class."""
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.jit.script(self).save(str(path))


def goal_ahead(agent_pos: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """The goal in the camera's own axes (N, 3), metres, of obs="dict": privileged, for what teaches it alone."""
    right, down = agent_pos[:, 3:6], agent_pos[:, 6:9]
    axes = np.stack([right, down, np.cross(right, down)], 1)  # (N, 3, 3), camera axes as rows
    return np.einsum("nij,nj->ni", axes, goal - agent_pos[:, :3])
