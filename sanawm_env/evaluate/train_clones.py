"""Train the clones: a small network that imitates an expert with privileged pose, kept at several stages.

    python -m sanawm_env.evaluate.train_clones --out clones.safetensors

Renders views of training rooms (extra `bullet`) and trains on one thread: about ten minutes.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from sanawm_env.evaluate.clone import CloneNetwork, to_input
from sanawm_env.evaluate.views import Views, render_views
from world_model.errors import InputError

STAGES = {"early": 24, "middle": 30, "late": 3000}  # updates after which each is kept: skill comes all at once


@dataclass(frozen=True, kw_only=True)
class TrainClones:
    """Options of `python -m sanawm_env.evaluate.train_clones`."""

    out: Path
    """File that the weights of all stages are written to."""
    rooms: int = 300
    per_room: int = 16
    """Views of each room."""
    batch: int = 64
    step_size: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rooms", "per_room", "batch", "step_size"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name}: expected a number above 0, got {getattr(self, name)}")


def train(views: Views, config: TrainClones, stages: dict[str, int]) -> dict[str, Tensor]:
    """Weights of every stage, named stage/parameter, float16."""
    torch.manual_seed(config.seed)
    network = CloneNetwork()
    optimizer = torch.optim.Adam(network.parameters(), lr=config.step_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(stages.values()), config.step_size / 20)
    pictures, actions = to_input(views.pictures), torch.from_numpy(views.actions)
    generator = torch.Generator().manual_seed(config.seed)
    weights = {}
    with tqdm(range(1, max(stages.values()) + 1), desc="clones") as bar:
        for update in bar:
            chosen = torch.randint(len(views), (config.batch,), generator=generator)
            loss = (network(pictures[chosen]) - actions[chosen]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if update % 100 == 0:
                bar.set_postfix(loss=f"{loss.item():.4f}")
            for stage in (name for name, last in stages.items() if last == update):
                for name, value in network.state_dict().items():
                    weights[f"{stage}/{name}"] = value.half().clone()
    return weights


def main() -> None:
    import tyro

    config = tyro.cli(TrainClones, prog="python -m sanawm_env.evaluate.train_clones", description=__doc__)
    views = render_views(config.rooms, config.per_room, seed=config.seed)
    save_file(train(views, config, STAGES), config.out)
    print(f"{len(views)} views, stages {', '.join(STAGES)}: {config.out.resolve()}")


if __name__ == "__main__":
    main()
