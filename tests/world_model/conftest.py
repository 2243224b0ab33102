"""What the tests of the model share: weights that leave no path at zero."""

from collections.abc import Callable

import pytest
import torch


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
