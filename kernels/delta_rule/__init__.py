"""The frame-wise gated delta rule: one signature, the backend chosen by name.

q, k     (B, H, T, S, D)    queries and keys, S tokens in each of T frames
v        (B, H, T, S, V)    values
beta     (B, H, T, S)       how far a token's readout moves to its value, 0..1
decay    (B, H, T)          what a frame keeps of the state, 0..1
state    (B, H, V, D)       float32, None for zeros
"""

from torch import Tensor

from kernels.delta_rule import reference

BACKENDS = ("torch",)


def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    decay: Tensor,
    state: Tensor | None = None,
    *,
    reverse: bool = False,
    backend: str = "torch",
) -> tuple[Tensor, Tensor]:
    """What each token reads, (B, H, T, S, V) float32, and the state after the last frame written.

    Forwards a frame reads what the frames up to and including itself wrote; in reverse what the frames after it
    wrote, so that the two passes add up without counting a frame twice (stage-1 architecture, 9.3 and 9.4).
    Raises ValueError for a backend that is not one of BACKENDS.
    """
    check_backend(backend)
    return reference.delta_rule(q, k, v, beta, decay, state, reverse)


def delta_rule_states(
    k: Tensor, v: Tensor, beta: Tensor, decay: Tensor, state: Tensor | None = None, *, backend: str = "torch"
) -> Tensor:
    """The state after each frame, (B, H, T, V, D) float32: what training needs to start a world at any frame."""
    check_backend(backend)
    return reference.delta_rule_states(k, v, beta, decay, state)


def check_backend(backend: str) -> None:
    if backend not in BACKENDS:
        raise ValueError(f"delta_rule backend: expected one of {BACKENDS}, got {backend!r}")
