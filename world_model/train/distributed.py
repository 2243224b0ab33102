"""One run on several processes, started by torchrun: each draws its own clips, gradients are averaged, rank 0 writes.

Where no process group is initialised there is one worker, and every function here does nothing. All workers must see
the same OUT folder: they resume from the same snapshot.
"""

from collections.abc import Iterable, Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn

from world_model.errors import InputError


def join(environment: Mapping[str, str], device: str) -> None:
    """Enter the process group that torchrun describes in the environment; on CUDA, take the local rank's device.

    Raises InputError when a variable is missing.
    """
    missing = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"} - environment.keys()
    if missing:
        raise InputError(f"expected the variables that torchrun sets, {sorted(missing)} are missing")
    if device == "cuda":
        torch.cuda.set_device(int(environment["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device == "cuda" else "gloo")


def leave() -> None:
    """Wait for the others, and leave the process group."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def rank() -> int:
    """This worker's number; 0 is the one that writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def share(modules: Iterable[nn.Module]) -> None:
    """Give every worker rank 0's weights and buffers."""
    if dist.is_initialized():
        with torch.no_grad():
            for module in modules:
                for tensor in module.state_dict().values():
                    dist.broadcast(tensor, 0)


def average_gradients(module: nn.Module) -> None:
    """Replace every gradient by its mean over the workers; the same weights must have one on each."""
    if not dist.is_initialized():
        return
    gradients = [weight.grad for weight in module.parameters() if weight.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def agree(stop: bool, seconds: float, device: torch.device) -> tuple[bool, float]:
    """Whether to stop, if any worker was asked to, and rank 0's clock: schedules by time must be the same for all."""
    if not dist.is_initialized():
        return stop, seconds
    clock = torch.tensor(seconds, device=device, dtype=torch.float64)
    dist.broadcast(clock, 0)
    asked: Tensor = torch.tensor(float(stop), device=device)
    dist.all_reduce(asked, dist.ReduceOp.MAX)
    return bool(asked), float(clock)
