"""What changes from step to step of a run, how it begins, and how it is kept on disk.

A run whose weights are whole writes safetensors files; one whose weights are sharded over workers has them write their
parts together. Either goes on from the other's snapshots, on any number of workers.
"""

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from world_model.errors import CheckpointError
from world_model.train import distributed, optimizer, shard_snapshot, shards, snapshot

log = logging.getLogger(__name__)

STEMS = ("model", "ema", "optimizer")


@dataclass(kw_only=True)
class Progress:
    """What changes from step to step, and nothing else."""

    module: nn.Module
    ema: nn.Module
    shown: nn.Module  # what is validated and exported on rank 0: the EMA, or where that is sharded a whole copy of it
    optimizers: list[torch.optim.Optimizer] = field(default_factory=list)
    step: int = 0  # steps done
    seconds: float = 0.0
    recent: list[dict[str, float]] = field(default_factory=list)  # figures of the steps since the log's last line
    remade: frozenset[str] = frozenset()  # weights that snapshots leave out: whoever starts the run makes them again
    fingerprint: str = ""  # of these

    @property
    def is_sharded(self) -> bool:
        return self.shown is not self.ema


def begin(
    module: nn.Module, device: torch.device, *, shard: torch.dtype | None, remakes_frozen: bool = False
) -> Progress:
    """A run of `module` that has not begun: rank 0's weights everywhere, and as many sharded as `shard` (the type in
    which blocks are gathered) asks for. Optimisers are to be added. remakes_frozen: as for loop.fit."""
    fixed = {name: x for name, x in module.named_parameters(remove_duplicate=False) if not x.requires_grad}
    fixed = fixed if remakes_frozen else {}
    fingerprint = distributed.of_first(lambda: snapshot.fingerprint(fixed)) if fixed else ""
    module.to(device).train()
    distributed.share([module])
    ema = shown = _average_of(module)
    if shard is not None:
        shown = copy.deepcopy(ema).cpu() if distributed.rank() == 0 else nn.Module()
        for part in (module, ema):
            shards.shard(part, device, shard)
    return Progress(module=module, ema=ema, shown=shown, remade=frozenset(fixed), fingerprint=fingerprint)


def _average_of(module: nn.Module) -> nn.Module:
    """A frozen copy; weights that are not trained are the same ones, not copies."""
    fixed = {id(weight): weight for weight in module.parameters() if not weight.requires_grad}
    return copy.deepcopy(module, fixed).eval().requires_grad_(False)


def update_average(progress: Progress, decay: float) -> None:
    """Move the EMA of every weight that is trained towards it."""
    with torch.no_grad():
        for average, weight in zip(progress.ema.parameters(), progress.module.parameters(), strict=True):
            if weight.requires_grad:
                distributed.local(average).lerp_(distributed.local(weight), 1 - decay)


def show(progress: Progress) -> nn.Module:
    """The EMA to validate and to export, for rank 0 alone; all workers must ask."""
    if progress.is_sharded:
        leads = distributed.rank() == 0
        tensors = shards.gather(progress.ema.state_dict(), keep=leads)
        if leads:
            progress.shown.load_state_dict(tensors)
            progress.shown.to(next(progress.ema.parameters()).device)
    return progress.shown


def save(progress: Progress, root: Path, keep: int) -> None:
    """Write ROOT/step_N and keep the last few; all workers must call it."""
    moments = optimizer.moments(progress.optimizers, progress.module)
    states = (progress.module.state_dict(), progress.ema.state_dict())
    kept = [{name: x for name, x in state.items() if name not in progress.remade} for state in states]
    groups = dict(zip(STEMS, (*kept, moments), strict=True))
    about = {"seconds": progress.seconds, "recent": progress.recent, "left_out": progress.fingerprint}
    if progress.is_sharded:
        tensors = {f"{stem}.{name}": x for stem, group in groups.items() for name, x in group.items()}
        shard_snapshot.write(root, progress.step, tensors, about)
    elif distributed.rank() == 0:
        snapshot.write_snapshot(root, progress.step, groups, about)
    if distributed.rank() == 0:
        snapshot.prune(root, keep)


def resume(progress: Progress, root: Path) -> None:
    """Go on from rank 0's newest whole snapshot, if there is one; all workers must call it.

    Raises CheckpointError when snapshots are broken or of another configuration.
    """
    found = distributed.of_first(lambda: snapshot.newest(root))
    if found is None:
        return
    folder, about = found
    left_out = about.get("left_out", "")
    if left_out not in ("", progress.fingerprint):  # none: a snapshot of everything
        raise CheckpointError(
            f"{root}: expected snapshots above the frozen weights of this run, {progress.fingerprint or 'none'}, "
            f"got some above {left_out}"
        )
    groups = _shared_groups(progress, folder) if shard_snapshot.are_in(folder) else snapshot.read_groups(folder, STEMS)
    try:
        for module, stem in ((progress.module, "model"), (progress.ema, "ema")):
            own = {name: x for name, x in module.state_dict().items() if left_out and name in progress.remade}
            module.load_state_dict(own | _cut(groups[stem], module))
    except RuntimeError as error:
        raise CheckpointError(f"{root}: expected snapshots of this configuration: {error}") from error
    optimizer.restore(progress.optimizers, progress.module, groups["optimizer"])
    progress.step, progress.seconds = about["step"], about["seconds"]
    progress.recent = list(about.get("recent", []))
    log.info("resumed %s at step %d, %.1f minutes", root, progress.step, progress.seconds / 60)


def _cut(tensors: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    own = module.state_dict()
    return {name: shards.like(x, own[name]) if name in own else x for name, x in tensors.items()}


def _shared_groups(progress: Progress, folder: Path) -> dict[str, dict[str, Tensor]]:
    """The groups of a snapshot in parts, of which every worker reads what it holds."""
    weights = dict(progress.module.named_parameters())
    patterns = {f"model.{name}": x for name, x in progress.module.state_dict().items()}
    patterns |= {f"ema.{name}": x for name, x in progress.ema.state_dict().items()}

    def make(name: str, shape: torch.Size) -> Tensor:
        stem, rest = name.split(".", 1)
        pattern = weights.get(rest.split(".", 1)[1]) if stem == "optimizer" else patterns.get(name)
        fits = pattern is not None and pattern.shape == shape
        return torch.empty_like(pattern, requires_grad=False) if fits else torch.empty(shape)  # pyright: ignore

    groups: dict[str, dict[str, Tensor]] = {stem: {} for stem in STEMS}
    for name, tensor in shard_snapshot.read(folder, make).items():
        stem, rest = name.split(".", 1)
        groups[stem][rest] = tensor
    return groups
