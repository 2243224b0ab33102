"""What the tests of the model share: weights that leave no path at zero, and worlds to play with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor

from world_model.config import WorldConfig
from world_model.model import WorldModel
from world_model.presets import nano, tiny_sana
from world_model.state import WorldState
from world_model.tree import named_tensors

PROMPTS = ["a red room", "", "room room", "red", "a room with a red ball"]


def randomise_(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Draw every parameter and buffer anew: the initial ones are zero or the identity on many paths."""
    generator = torch.Generator().manual_seed(seed)
    tensors = module.state_dict()
    with torch.no_grad():
        for name in sorted(tensors):
            tensor = tensors[name]
            if not tensor.is_floating_point():
                continue
            spread = tensor[0].numel() ** -0.5 if tensor.dim() > 1 else 0.2
            centre = 1.0 if (tensor.dim() == 1 and "norm" in name) or name.endswith("latents_std") else 0.0
            tensor.copy_(centre + spread * torch.randn(tensor.shape, generator=generator))
    return module


@pytest.fixture(scope="session")
def randomise() -> Callable[..., torch.nn.Module]:
    """A function that fills a module with random weights, in place."""
    return randomise_


def random_model(config: WorldConfig, seed: int = 0) -> WorldModel:
    """A world model whose every weight is random."""
    raw = WorldModel.random(config, seed)
    for i, part in enumerate((raw.transformer, raw.tokenizer, raw.text)):
        randomise_(part, seed + i)
    # Pictures inside 0..255: where all is black or white, no difference would show.
    channels, cells = config.tokenizer.latent_channels, config.tokenizer.grid
    noise = torch.randn(2, channels, 1, *cells, generator=torch.Generator().manual_seed(seed))
    decoder = raw.tokenizer.decoder
    with torch.no_grad():
        spread = 2.5 * raw.tokenizer.decode(noise, noise)[0].std()
        for last in (decoder.linear, decoder.layers[-1]):
            for weight in last.parameters():
                weight /= spread
    return WorldModel(config, raw.transformer, raw.tokenizer, raw.text)


@dataclass(frozen=True)
class Play:
    """A model with random weights, five start pictures, and a path for each of five worlds."""

    model: WorldModel
    pictures: np.ndarray  # (5, H, W, 3) uint8
    made: dict[tuple, WorldState] = field(default_factory=dict)  # states are values: one run serves every test

    @staticmethod
    def of(config: WorldConfig, seed: int = 0) -> "Play":
        model = random_model(config, seed)
        return Play(model, np.random.default_rng(3).integers(0, 256, (5, *model.size, 3), dtype=np.uint8))

    def start(self, worlds: Sequence[int]) -> WorldState:
        """Worlds before their first step; number i always has the same picture, prompt, lens and seed."""
        lenses = [[0.8 * self.model.size[1] + i, 0.8 * self.model.size[1], 30.0 + i, 31.0] for i in worlds]
        prompts = [PROMPTS[i] for i in worlds]
        return self.model.reset(self.pictures[list(worlds)], prompts, lenses, [10 + i for i in worlds])[0]

    def poses(self, worlds: Sequence[int], step: int) -> Tensor:
        """(B, F, 4, 4): the frames of step `step` of worlds that turn and move, each in its own way."""
        count = self.model.config.frames_per_step
        frames = torch.arange(step * count + 1, (step + 1) * count + 1)
        poses = torch.eye(4).repeat(len(worlds), count, 1, 1)
        for row, i in enumerate(worlds):
            turn = torch.zeros(count, 3, 3)
            turn[:, 0, 2] = 0.01 * (i - 2) * frames
            turn[:, 2, 1] = 0.004 * frames
            poses[row, :, :3, :3] = torch.linalg.matrix_exp(turn - turn.mT)
            poses[row, :, :3, 3] = torch.stack([0.01 * i * frames, 0 * frames, 0.02 * frames], -1)
        return poses

    def run(self, worlds: Sequence[int], steps: int) -> WorldState:
        """Worlds after some steps."""
        key = (*worlds, "after", steps)
        if key not in self.made:
            before = self.run(worlds, steps - 1) if steps else None
            after = self.start(worlds) if before is None else self.model.step(before, self.poses(worlds, steps - 1))[0]
            self.made[key] = after
        return self.made[key]

    @property
    def settled(self) -> int:
        """Steps until the window is full and has let a chunk go."""
        return self.model.config.recent // self.model.config.block + 2


@pytest.fixture(scope="session", params=["nano", "tiny_sana"])
def play(request: pytest.FixtureRequest) -> Play:
    """Worlds of the shipped model's shape, and of the released one's semantics."""
    words = ("a", "room", "with", "red", "ball")
    return Play.of(nano(words) if request.param == "nano" else tiny_sana())


@pytest.fixture(scope="session")
def tiny() -> Play:
    """Worlds of tiny_sana alone, where one model is enough."""
    return Play.of(tiny_sana())


@pytest.fixture(scope="session")
def assert_same() -> Callable[[WorldState, WorldState], None]:
    """A function that compares two states bit for bit."""

    def compare(got: WorldState, expected: WorldState) -> None:
        assert got.model == expected.model
        left, right = named_tensors(got), named_tensors(expected)
        assert left.keys() == right.keys()
        different = [name for name in left if not torch.equal(left[name], right[name])]
        assert not different

    return compare


@pytest.fixture(scope="session")
def copy_of() -> Callable[[WorldState], dict[str, Tensor]]:
    """A function that copies every tensor of a state, to see later whether one was changed."""
    return lambda state: {name: tensor.clone() for name, tensor in named_tensors(state).items()}
