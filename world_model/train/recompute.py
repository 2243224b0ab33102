"""Gradient checkpointing: blocks keep their inputs alone, and compute the rest again when gradients are asked for."""

import functools

from torch import nn
from torch.utils.checkpoint import checkpoint

from world_model.errors import InputError
from world_model.transformer import Block


def recompute_blocks(module: nn.Module) -> int:
    """Let every transformer block in `module` do so, in place, and say how many.

    The block's own forward is wrapped, so sharding gathers its weights around both computations. Raises InputError
    where there is no block.
    """
    blocks = [part for part in module.modules() if isinstance(part, Block)]
    if not blocks:
        raise InputError("recompute: expected a module with transformer blocks, found none")
    for block in blocks:
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
    return len(blocks)
