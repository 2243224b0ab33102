"""One run on several processes, started by torchrun: how they are arranged, and what they agree on.

`context` neighbouring workers hold the frames of each clip together and draw the same; a group of them is a replica.
Replicas draw their own clips, and rank 0 writes. Where no process group is initialised there is one worker, and every
function here does nothing. All workers must see the same OUT folder: they resume from the same snapshot.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

from world_model.errors import InputError
from world_model.sharding import ALL_FRAMES, AllFrames, SomeFrames

T = TypeVar("T")

_mesh: DeviceMesh | None = None  # (replicas, context), beside torch's own process group and as long-lived


def join(environment: Mapping[str, str], device: str, context: int = 1) -> None:
    """Enter the process group that torchrun describes in the environment; on CUDA, take the local rank's device.

    context: as for `arrange`. Raises InputError when a variable is missing, or when the workers can't be grouped so.
    """
    missing = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"} - environment.keys()
    if missing:
        raise InputError(f"expected the variables that torchrun sets, {sorted(missing)} are missing")
    if device == "cuda":
        torch.cuda.set_device(int(environment["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    arrange(device, context)


def arrange(device: str, context: int) -> None:
    """Let every `context` neighbouring workers hold clips together. Raises InputError if they don't divide evenly."""
    global _mesh
    replicas, rest = divmod(dist.get_world_size(), context)
    if rest:
        raise InputError(f"context: expected a divisor of the {dist.get_world_size()} processes, got {context}")
    _mesh = init_device_mesh(device, (replicas, context), mesh_dim_names=("replicas", "context"))


def leave() -> None:
    """Wait for the others, and leave the process group."""
    global _mesh
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
    _mesh = None


def rank() -> int:
    """This worker's number; 0 is the one that writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def replica() -> int:
    """The number of this worker's replica: whoever draws at random draws by it."""
    return _mesh.get_local_rank("replicas") if _mesh is not None else 0


def replicas() -> int:
    """How many replicas there are."""
    return _mesh["replicas"].size() if _mesh is not None else 1


def held(frames: int) -> AllFrames:
    """Which of a clip's `frames` latent frames this worker holds."""
    if _mesh is None or _mesh["context"].size() == 1:
        return ALL_FRAMES
    return SomeFrames(frames, _mesh.get_local_rank("context"), _mesh["context"].size(), _mesh.get_group("context"))


def share(modules: Iterable[nn.Module]) -> None:
    """Give every worker rank 0's weights and buffers."""
    if dist.is_initialized():
        with torch.no_grad():
            for module in modules:
                for tensor in module.state_dict().values():
                    dist.broadcast(tensor, 0)


def of_first(make: Callable[[], T]) -> T:
    """What rank 0 makes, on every worker: a choice that must be the same for all. It is pickled."""
    if not dist.is_initialized():
        return make()
    made = [make() if rank() == 0 else None]
    dist.broadcast_object_list(made, 0)
    return made[0]  # pyright: ignore[reportReturnType]


def average_gradients(module: nn.Module) -> None:
    """Replace every gradient by its mean over the workers; the same weights must have one on each.

    Those of sharded weights are means already.
    """
    if not dist.is_initialized():
        return
    gradients = [w.grad for w in module.parameters() if w.grad is not None and not isinstance(w.grad, DTensor)]
    if not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def average(values: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The means over the workers of scalars, which all must have under the same names."""
    if not dist.is_initialized():
        return values
    device = next(iter(values.values())).device
    means = torch.stack([value.detach().float().to(device) for value in values.values()]) / dist.get_world_size()
    dist.all_reduce(means)
    return dict(zip(values, means.unbind(), strict=True))


def clip_gradients(module: nn.Module, limit: float, apart: Sequence[str] = ()) -> Tensor:
    """Scale gradients of `module` so that their norm is at most `limit`; the norm of all before, a scalar.

    apart: beginnings of the names of weights that are measured and scaled by themselves, as the rest is.
    """
    parts: dict[str, list[nn.Parameter]] = {}
    for name, weight in module.named_parameters():
        if weight.grad is not None:
            parts.setdefault(next((start for start in apart if name.startswith(start)), ""), []).append(weight)
    norms = [_clip(weights, limit) for weights in parts.values()]
    return norms[0] if len(norms) == 1 else torch.stack(norms).norm()


def _clip(weights: Sequence[nn.Parameter], limit: float) -> Tensor:
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    sharded = [gradient for gradient in gradients if isinstance(gradient, DTensor)]
    if not sharded:
        return nn.utils.clip_grad_norm_(weights, limit, error_if_nonfinite=False)
    whole = [gradient for gradient in gradients if not isinstance(gradient, DTensor)]
    mine, common = (nn.utils.get_total_norm([local(g) for g in each]) ** 2 for each in (sharded, whole))
    square = mine.to(local(sharded[0]).device)
    dist.all_reduce(square)
    norm = (square + common.to(square.device)).sqrt()
    for gradient in gradients:
        local(gradient).mul_((limit / (norm + 1e-6)).clamp(max=1.0))
    return norm


def local(tensor: Tensor) -> Tensor:
    """This worker's part of a sharded tensor, or all of one that is not; the same storage."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def agree(stop: bool, seconds: float, device: torch.device) -> tuple[bool, float]:
    """Whether to stop, if any worker was asked to, and rank 0's clock: schedules by time must be the same for all."""
    if not dist.is_initialized():
        return stop, seconds
    clock = torch.tensor(seconds, device=device, dtype=torch.float64)
    dist.broadcast(clock, 0)
    asked: Tensor = torch.tensor(float(stop), device=device)
    dist.all_reduce(asked, dist.ReduceOp.MAX)
    return bool(asked), float(clock)
