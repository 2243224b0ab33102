"""Fine-tuning by low-rank updates: the trained weights stay, and a product of two thin matrices is added to each.

An update is a parametrisation of the weight itself, so modules keep their names and their code: whoever reads a
layer's `weight` reads the sum. `merged_weights` has all of them. Source: Hu et al. 2021, arXiv 2106.09685.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from world_model.errors import InputError

TARGETS = (nn.Linear, nn.Conv2d)  # maps; depthwise convolutions (one input a channel) are left out
HELD = (*TARGETS, nn.Conv3d)


class LowRank(nn.Module):
    """weight + up @ down, zero at the start, float32. Scale 1: the published recipes set alpha to the rank."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        out, inputs = len(weight), weight[0].numel()
        self.down = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(rank, inputs), a=5**0.5).to(weight.device))
        self.up = nn.Parameter(torch.zeros(out, rank, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):  # the sum that is exported is the one that is trained
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
        # unsafe: a sum of another type than the weight is meant
        parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank), unsafe=True)
    return len(maps)


def hold_in(module: nn.Module, dtype: torch.dtype) -> None:
    """Hold the weights of all maps in `dtype`, in place, before any has an update.

    Autocast rounds these to its type whenever they are used, so that in that type they compute the same at half the
    memory. What it leaves in float32 stays: norms, modulations, the gates' rates.
    """
    for layer in module.modules():
        if isinstance(layer, HELD):
            layer.to(dtype)


def merged_weights(module: nn.Module) -> dict[str, Tensor]:
    """The state of `module` under its ordinary names, the updates folded in."""
    updated = {name: layer for name, layer in module.named_modules() if parametrize.is_parametrized(layer, "weight")}
    plain = {name: x for name, x in module.state_dict().items() if ".parametrizations." not in name}
    return plain | {f"{name}.weight": layer.weight.detach() for name, layer in updated.items()}
