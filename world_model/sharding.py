"""Context parallelism over time: which frames of a clip this worker holds, and how it sees those that others hold.

Time is mixed in three places: by the delta rule, by convolutions over frames, and by softmax. Each asks the value
`held` of its grid. `AllFrames`, the default, answers out of what is at hand. `SomeFrames` holds one of several equal,
contiguous shards and answers together with the workers that hold the others (training specification, 7.2 and 7.3).
Everything that they exchange goes through one differentiable all-gather, at the same places of every worker's graph.

Shapes: B worlds, T frames held here, H heads, S tokens of a frame, D key channels, V value channels, P shards.
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from kernels.delta_rule import delta_rule, delta_rule_states
from world_model.errors import require


@dataclass(frozen=True)
class AllFrames:
    """One worker holds the whole clip: nothing lies beyond it but its past."""

    @property
    def first(self) -> int:
        """The clip's frame that is the first one here."""
        return 0

    def cut(self, x: Tensor, axis: int) -> Tensor:
        """The part of a whole clip's tensor that is held here."""
        return x

    def real(self, device: torch.device | str) -> Tensor | None:
        """(T,) bool: which frames are the clip's and not padding; None if all."""
        return None

    def ends(self, chunks: tuple[int, ...]) -> list[int]:
        """The frames after which caches are handed on: the last of each chunk."""
        return (torch.tensor(chunks).cumsum(0) - 1).tolist()

    def around(self, x: Tensor, past: Tensor | None, reach: int) -> Tensor:
        """x (B, T, ...) between `reach` frames on each side; outside the clip: `past` (B, reach, ...), zeros."""
        beyond = x.new_zeros(x.shape[0], reach, *x.shape[2:])
        return torch.cat([beyond if past is None else past, x, beyond], 1)

    def whole(self, x: Tensor, axis: int, step: int) -> Tensor:
        """x of all frames of the clip; `axis` counts `step` entries a frame."""
        return x

    def mean(self, values: Tensor, weight: Tensor) -> Tensor:
        """The weighted mean over all frames of the clips, a scalar; values and weight (B, T)."""
        return (values * weight).sum() / weight.sum()

    def delta_rule(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        beta: Tensor,
        decay: Tensor,
        state: Tensor,
        chunks: tuple[int, ...],
        backend: str,
    ) -> tuple[Tensor, Tensor]:
        """What tokens read of this and earlier frames (B, H, T, S, V); states at chunks' ends (B, H, n, V, D)."""
        if len(chunks) == 1:
            out, state = delta_rule(q, k, v, beta, decay, state, backend=backend)
            return out, state[:, :, None]
        states = delta_rule_states(k, v, beta, decay, state, backend=backend)
        return q.float() @ states.mT, states[:, :, self.ends(chunks)]

    def delta_rule_later(self, q: Tensor, k: Tensor, v: Tensor, beta: Tensor, decay: Tensor, backend: str) -> Tensor:
        """What tokens read of later frames, (B, H, T, S, V) float32."""
        return delta_rule(q, k, v, beta, decay, reverse=True, backend=backend)[0]


ALL_FRAMES = AllFrames()


@dataclass(frozen=True)
class SomeFrames(AllFrames):
    """Shard `rank` of a clip of `frames` frames, cut into `ranks` equal ones; the last frame pads the clip's end.

    Padded frames write nothing and forget nothing, no softmax sees them, and no chunk has them. Calls leave no caches
    to go on from.
    """

    frames: int
    rank: int
    ranks: int
    group: dist.ProcessGroup | None = None  # of the workers that hold the clip; None: all

    def __post_init__(self) -> None:
        require(0 <= self.rank < self.ranks, f"rank: expected one of {self.ranks}, got {self.rank}")
        require(self.frames >= 1, f"frames: expected >= 1, got {self.frames}")

    @property
    def count(self) -> int:
        """Frames of every shard, padding included."""
        return -(-self.frames // self.ranks)

    @property
    def first(self) -> int:
        return self.rank * self.count

    def cut(self, x: Tensor, axis: int) -> Tensor:
        require(x.shape[axis] == self.frames, f"clip: expected {self.frames} frames, got {x.shape[axis]}")
        frames = torch.arange(self.first, self.first + self.count, device=x.device).clamp_max(self.frames - 1)
        return x.index_select(axis, frames)

    def real(self, device: torch.device | str) -> Tensor | None:
        return torch.arange(self.first, self.first + self.count, device=device) < self.frames

    def ends(self, chunks: tuple[int, ...]) -> list[int]:
        return []

    def around(self, x: Tensor, past: Tensor | None, reach: int) -> Tensor:
        edge = min(reach, self.count)  # a short shard's neighbours may not have all that is asked for
        edges = self._gather(torch.cat([x[:, :edge], x[:, self.count - edge :]], 1)).transpose(0, 1)  # (B, P, ...)
        firsts, lasts = (y.flatten(1, 2) for y in edges.split(edge, 2))
        clip = super().around(firsts, past, reach), super().around(lasts, past, reach)
        after, before = clip[0][:, reach + (self.rank + 1) * edge :], clip[1][:, self.rank * edge :]
        return torch.cat([before[:, :reach], x, after[:, :reach]], 1)

    def whole(self, x: Tensor, axis: int, step: int) -> Tensor:
        return self._gather(x).movedim(0, axis).flatten(axis, axis + 1).narrow(axis, 0, self.frames * step)

    def mean(self, values: Tensor, weight: Tensor) -> Tensor:
        """Equal on all workers; the gradient is of this worker's part, such that the workers' mean is the whole's."""
        weight = weight * self.real(weight.device)
        sums = torch.stack([(values.detach() * weight).sum(), weight.sum()])
        dist.all_reduce(sums, group=self.group)
        mine = (values * weight).sum() * (self.ranks / sums[1])
        return mine + (sums[0] / sums[1] - mine).detach()

    def delta_rule(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        beta: Tensor,
        decay: Tensor,
        state: Tensor,
        chunks: tuple[int, ...],
        backend: str,
    ) -> tuple[Tensor, Tensor]:
        states = self._states(k, v, beta, decay, state, False, backend)
        return q.float() @ states[:, :, 1:].mT, states[:, :, self.ends(chunks)]

    def delta_rule_later(self, q: Tensor, k: Tensor, v: Tensor, beta: Tensor, decay: Tensor, backend: str) -> Tensor:
        zeros = k.new_zeros(*k.shape[:2], v.shape[-1], k.shape[-1], dtype=torch.float32)
        states = self._states(k.flip(2), v.flip(2), beta.flip(2), decay.flip(2), zeros, True, backend)
        return q.float() @ states[:, :, :-1].flip(2).mT

    def _states(
        self, k: Tensor, v: Tensor, beta: Tensor, decay: Tensor, state: Tensor, reverse: bool, backend: str
    ) -> Tensor:
        """States before the first frame and after each, (B, H, 1 + T, V, D), when `state` is that before the clip.

        The frames here act on a state from outside as one matrix. It comes out of the scan itself: rows of a state do
        not mix, so rows that start as the identity and are never written end as the product of the transitions.
        """
        real = self.real(k.device)
        real = real.flip(0) if reverse else real
        beta, decay = beta * real[:, None], torch.where(real, decay, 1.0)
        values, keys = v.shape[-1], k.shape[-1]
        eye = torch.eye(keys, device=k.device).expand(*k.shape[:2], -1, -1)
        start = torch.cat([torch.zeros_like(state), eye], 2)  # (B, H, V + D, D)
        scanned = delta_rule_states(k, F.pad(v, (0, keys)), beta, decay, start, backend=backend)
        own, product = scanned.split([values, keys], 3)  # (B, H, T, V, D), (B, H, T, D, D)
        composites = self._gather(scanned[:, :, -1])
        for other in reversed(range(self.ranks)) if reverse else range(self.ranks):
            written, kept = composites[other].split([values, keys], 2)
            earlier = other > self.rank if reverse else other < self.rank
            # masked, not skipped: every worker's graph must hold the exchange
            state = state + earlier * (state @ kept + written - state)
        return torch.cat([state[:, :, None], state[:, :, None] @ product + own], 2)

    def _gather(self, x: Tensor) -> Tensor:
        """x of every shard, in the order of time: (P, ...)."""
        return _AllGather.apply(x, self.group)


class _AllGather(torch.autograd.Function):
    """Of equal shapes into a new first axis; each worker's gradient is the sum of what all made of its part."""

    @staticmethod
    def forward(ctx, x: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        ctx.group = group
        out = x.new_empty(dist.get_world_size(group), *x.shape)
        dist.all_gather(list(out.unbind()), x.contiguous(), group=group)
        return out

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        own = gradient.new_empty(gradient.shape[1:])
        dist.reduce_scatter(own, list(gradient.contiguous().unbind()), group=ctx.group)
        return own, None
