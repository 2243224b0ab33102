"""Fine-tuning by low-rank updates: the trained weights stay, and a product of two thin matrices is added to each.

An update is a parametrisation of the weight itself, so modules keep their names and their code; `merged_weights`
folds the updates in. Source: Hu et al. 2021, arXiv 2106.09685.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from world_model.errors import InputError

TARGETS = (nn.Linear, nn.Conv2d)  # maps; depthwise convolutions (one input a channel) are left out


class LowRank(nn.Module):
    """weight + up @ down, zero at the start. Scale 1: the published recipes set alpha to the rank."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        out, inputs = len(weight), weight[0].numel()
        self.down = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(rank, inputs), a=5**0.5).to(weight))
        self.up = nn.Parameter(weight.new_zeros(out, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.up @ self.down).view_as(weight)


def add_updates(module: nn.Module, rank: int, parts: tuple[str, ...] = ("attn", "mlp")) -> int:
    """Freeze `module` and give every map inside a sub-module named in `parts` an update of this rank; how many.

    Raises InputError for a rank below one, or when no map is found.
    """
    if rank < 1:
        raise InputError(f"rank: expected >= 1, got {rank}")
    module.requires_grad_(False)
    maps = [
        layer
        for name, layer in module.named_modules()
        if isinstance(layer, TARGETS) and layer.weight.shape[1] > 1 and set(parts) & set(name.split("."))
    ]
    if not maps:
        raise InputError(f"parts: expected names of sub-modules with linear maps, got {parts}")
    for layer in maps:
        parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank))
    return len(maps)


def merged_weights(module: nn.Module) -> dict[str, Tensor]:
    """The state of `module` under its ordinary names, the updates folded in."""
    updated = {name: layer for name, layer in module.named_modules() if parametrize.is_parametrized(layer, "weight")}
    plain = {name: x for name, x in module.state_dict().items() if ".parametrizations." not in name}
    return plain | {f"{name}.weight": layer.weight.detach() for name, layer in updated.items()}
