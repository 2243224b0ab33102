"""Which optimiser updates which weights, and what it remembers, by the weights' names."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from world_model.errors import CheckpointError
from world_model.train import shards
from world_model.train.muon import Muon, takes


def build(
    module: nn.Module,
    *,
    kind: str,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.99),
    scales: Mapping[str, float] | None = None,
) -> list[torch.optim.Optimizer]:
    """AdamW for all weights; with kind "muon", Muon for linear maps and convolutions. Biases, norms and other
    weights of one axis do not decay. betas: AdamW's. scales: of the learning rate, by the beginning of weights' names;
    every group keeps its own as "scale".
    """
    muon = {id(weight) for weight in takes(module)} if kind == "muon" else set()
    groups: dict[tuple[bool, bool, float, bool], list[nn.Parameter]] = {}  # the last: fused kernels mix no kinds
    for name, weight in module.named_parameters():
        if weight.requires_grad:
            scale = next((s for start, s in (scales or {}).items() if name.startswith(start)), 1.0)
            key = (id(weight) in muon, weight.ndim >= 2, scale, isinstance(weight, DTensor))
            groups.setdefault(key, []).append(weight)
    adamw, orthogonal = (
        [
            {"params": weights, "weight_decay": weight_decay * decays, "scale": scale, "lr": lr * scale}
            for (is_muon, decays, scale, _), weights in groups.items()
            if is_muon == wanted
        ]
        for wanted in (False, True)
    )
    optimizers: list[torch.optim.Optimizer] = []
    if adamw:
        optimizers.append(torch.optim.AdamW(adamw, lr=lr, betas=betas, fused=True))
    if orthogonal:
        optimizers.append(Muon(orthogonal, lr=lr))
    return optimizers


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
        value = shards.like(value, weight)
        like = weight if value.shape == weight.shape else value
        owners[id(weight)].state[weight][kind] = torch.empty_like(like, device=weight.device).copy_(value)
