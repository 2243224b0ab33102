"""The frame-wise gated delta rule in plain torch: the specification that every other backend is tested against.

A frame writes all its tokens at once. The state A (V, D) first decays, then moves what each key reads out of it
towards that key's value (stage-1 architecture, 9.3):

    A <- g A;   A <- A + sum_i beta_i (v_i - A k_i) k_i^T;   out_i = A q_i

With K the keys of a frame as rows, that is A <- g A (I - K^T B K) + V^T B K, whose two matrices do not depend on
A: they are built for all frames at once, and only the product with A runs frame after frame.

Shapes: B batch, H heads, T frames, S tokens of a frame, D key channels, V value channels.
"""

import torch
from torch import Tensor


def delta_rule(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, decay: Tensor, state: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor]:
    """The delta rule over all frames; see `kernels.delta_rule.delta_rule` for shapes."""
    if not reverse:
        states = delta_rule_states(k, v, beta, decay, state)
        return q.float() @ states.mT, states[:, :, -1]
    # in reverse a frame reads what the frames after it wrote, and nothing of its own
    written = delta_rule_states(k.flip(2), v.flip(2), beta.flip(2), decay.flip(2), state)
    before = torch.zeros_like(written[:, :, :1]) if state is None else state[:, :, None]
    return q.float() @ torch.cat([before, written[:, :, :-1]], 2).flip(2).mT, written[:, :, -1]


def delta_rule_states(k: Tensor, v: Tensor, beta: Tensor, decay: Tensor, state: Tensor | None) -> Tensor:
    """The state after each frame, (B, H, T, V, D) float32."""
    k, v = k.float(), v.float()
    weighted = k * beta.float()[..., None]  # (B, H, T, S, D)
    decay = decay.float()[..., None, None]
    write = v.mT @ weighted  # (B, H, T, V, D)
    keep = decay * (torch.eye(k.shape[-1], device=k.device) - k.mT @ weighted)  # (B, H, T, D, D)
    states = []
    for kept, written in zip(keep.unbind(2), write.unbind(2), strict=True):
        state = written if state is None else state @ kept + written
        states.append(state)
    return torch.stack(states, 2)
