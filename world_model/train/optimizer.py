"""Which optimiser updates which weights, and what it remembers, by the weights' names."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from world_model.errors import CheckpointError
from world_model.train.muon import Muon, takes


def build(module: nn.Module, *, kind: str, lr: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    """AdamW for all weights; with kind "muon", Muon for linear maps and convolutions. Biases, norms and other
    weights of one axis do not decay.
    """
    muon = {id(weight): weight for weight in takes(module) if kind == "muon" and weight.requires_grad}
    others = [weight for weight in module.parameters() if weight.requires_grad and id(weight) not in muon]
    groups = [
        {"params": [weight for weight in others if weight.ndim >= 2], "weight_decay": weight_decay},
        {"params": [weight for weight in others if weight.ndim < 2], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.99), fused=True)
    return [adamw, Muon(list(muon.values()), lr=lr, weight_decay=weight_decay)] if muon else [adamw]


def moments(optimizers: list[torch.optim.Optimizer], module: nn.Module) -> dict[str, Tensor]:
    """All that the optimisers remember, as KIND.NAME -> tensor."""
    names = {id(weight): name for name, weight in module.named_parameters()}
    return {
        f"{kind}.{names[id(weight)]}": value
        for optimizer in optimizers
        for weight, memory in optimizer.state.items()
        for kind, value in memory.items()
    }


def restore(optimizers: list[torch.optim.Optimizer], module: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """The inverse of `moments`, into fresh optimisers. Raises CheckpointError when weights have other names."""
    weights = dict(module.named_parameters())
    owners = {id(weight): o for o in optimizers for group in o.param_groups for weight in group["params"]}
    for key, value in saved.items():
        kind, name = key.split(".", 1)
        if name not in weights:
            raise CheckpointError(f"optimiser state {key}: expected a weight of that name, found none")
        weight = weights[name]
        like = weight if value.shape == weight.shape else value
        owners[id(weight)].state[weight][kind] = torch.empty_like(like, device=weight.device).copy_(value)
