"""Muon: momentum whose matrices are made orthogonal, so that weak directions learn as fast as strong ones.

Pixels and latents are ill-conditioned (brightness outweighs colour and detail by far), and AdamW spends its first
hundreds of steps on the strong directions. Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural
networks"; the update's scale, which lets AdamW's learning rate serve both, is of Liu et al. 2025, arXiv 2502.16982.

Where weights are sharded, every worker gathers a matrix's momentum, makes all of it orthogonal, and keeps its part.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from world_model.train import shards

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic, tuned to lift small singular values quickly
ROUNDS = 5


class Muon(torch.optim.Optimizer):
    """Takes weights with at least two axes; the first is the output, the others are flattened into the input."""

    def __init__(
        self,
        params: Iterable[nn.Parameter] | list[dict[str, Any]],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One update of every weight that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
                ahead = weight.grad.lerp(state["momentum"], group["momentum"])
                matrix = shards.whole(ahead).reshape(len(weight), -1)  # only whole matrices have singular values
                update = orthogonal(matrix) * (0.2 * max(matrix.shape) ** 0.5)
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(shards.like(update.view(weight.shape), weight), alpha=-group["lr"])


def orthogonal(matrix: Tensor) -> Tensor:
    """The nearest (semi-)orthogonal matrix, roughly: singular values end in about [0.7, 1.2]."""
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(ROUNDS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


def takes(module: nn.Module) -> list[nn.Parameter]:
    """The weights of `module` that Muon is for: of linear maps and full convolutions, not of embeddings."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    layers = [layer for layer in module.modules() if isinstance(layer, kinds)]
    return [layer.weight for layer in layers if layer.weight.shape[1] > 1]  # one input: depthwise
