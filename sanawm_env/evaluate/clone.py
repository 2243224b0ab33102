"""A small network that acts on pixels, and its stages of training that are shipped as policies.

`python -m sanawm_env.evaluate.train_clones` trains them. Shapes: N pictures, C channels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from world_model.errors import InputError

WEIGHTS = Path(__file__).with_name("clones.safetensors")
SIDE = 64  # pixels that the network sees, both ways
CHANNELS = 24


class CloneNetwork(nn.Module):
    """Pictures (N, 3, SIDE, SIDE) in [0, 1] to actions (N, 6) in [-1, 1].

    Where each feature lies in the picture, and how strong it is, says a soft argmax (Finn et al., Deep spatial
    autoencoders, 2016): fourteen thousand parameters are enough.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(16, CHANNELS, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
        )
        self.head = nn.Sequential(nn.Linear(3 * CHANNELS, 48), nn.ReLU(), nn.Linear(48, 6))

    def forward(self, pictures: Tensor) -> Tensor:
        maps = self.features(2 * pictures - 1)  # (N, C, Y, X)
        share = maps.flatten(2).softmax(-1).unflatten(-1, maps.shape[2:])
        y, x = (torch.linspace(-1, 1, side, device=maps.device) for side in maps.shape[2:])
        seen = torch.cat([share.sum(2) @ x, share.sum(3) @ y, maps.amax((2, 3)) / 4], -1)  # (N, 3 * C)
        return self.head(seen).tanh()


def to_input(pictures: np.ndarray) -> Tensor:
    """Pictures (N, H, W, 3) uint8 as the network takes them, (N, 3, SIDE, SIDE) float32."""
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    return F.interpolate(pixels, (SIDE, SIDE), mode="area")


@dataclass(frozen=True, kw_only=True)
class Clone:
    """The network after a stage of training, as a policy."""

    stage: str
    weights: Path = WEIGHTS
    reads = "pixels"

    def __post_init__(self) -> None:
        if self.stage not in (known := stages(self.weights)):
            raise InputError(f"stage: expected one of {list(known)}, got {self.stage!r}")

    def begin(self, seed: int) -> "Clone":
        return self

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """An action (6,) float32 for a picture (H, W, 3) uint8."""
        with torch.no_grad():
            return stages(self.weights)[self.stage](to_input(picture[None]))[0].numpy()


@cache
def stages(path: Path) -> Mapping[str, CloneNetwork]:
    """The networks of a file of weights by the names of their stages."""
    if not path.is_file():
        raise InputError(f"{path}: expected a file of weights, got none")
    values = load_file(path)
    networks = {}
    for stage in sorted({name.split("/")[0] for name in values}):
        network = CloneNetwork()
        own = {name.split("/")[1]: value.float() for name, value in values.items() if name.startswith(f"{stage}/")}
        network.load_state_dict(own, strict=True)
        networks[stage] = network.eval()
    return networks
