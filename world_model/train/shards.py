"""Weights spread over all workers (FSDP2): each keeps a part of every weight, its gradient and what optimisers know.

A transformer's blocks are gathered one after the other while they are computed. The parts of a block that prepare a
call (camera and prompt) are gathered by themselves, since they run before the blocks do. What is no part of a
transformer stays whole on every worker (training specification, 7.1).
"""

import warnings
from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from world_model.errors import InputError
from world_model.transformer import SanaWM


def shard(module: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Spread the weights of every transformer in `module`, in place, over all workers; all must have the same ones.

    dtype: what blocks are gathered in; weights, their means and updates stay in their own. Raises InputError where
    there is one process alone, or nothing to spread.
    """
    if not dist.is_initialized():
        raise InputError("shard: expected several processes, started by torchrun, got one")
    # no caller changes what a block returns in place, which is what the warning is about
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    transformers = [part for part in module.modules() if isinstance(part, SanaWM)]
    if not transformers:
        raise InputError("shard: expected a module with a transformer, found none")
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    # inputs keep their types: model times and camera rays would lose their meaning in bfloat16
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for transformer in transformers:
        for block in transformer.blocks:
            for part in (block.plucker_proj, block.cross_attn, block):
                fully_shard(part, mesh=mesh, mp_policy=policy)
            register_fsdp_forward_method(block.cross_attn, "read")
        fully_shard(transformer, mesh=mesh, mp_policy=policy)
        register_fsdp_forward_method(transformer, "condition")


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be sharded; every worker must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, pattern: Tensor) -> Tensor:
    """A whole tensor that every worker has, cut as `pattern` is; as it is where that is not sharded."""
    if not isinstance(pattern, DTensor) or isinstance(tensor, DTensor) or tensor.shape != pattern.shape:
        return tensor
    moved = tensor.to(pattern.device_mesh.device_type)
    return distribute_tensor(moved, pattern.device_mesh, pattern.placements, src_data_rank=None)


def gather(tensors: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Whole tensors on the CPU, one after the other, on the workers that `keep` them; all must ask."""
    gathered = {}
    for name, tensor in tensors.items():
        every = whole(tensor)
        if keep:
            gathered[name] = every.detach().cpu()
    return gathered
