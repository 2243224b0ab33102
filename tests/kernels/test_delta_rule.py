"""The delta rule against its definition: frame after frame, token by token, in float64."""

import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kernels.delta_rule import delta_rule, delta_rule_states

Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def draw(frames: int, tokens: int, keys: int, values: int, *, seed: int = 0) -> Inputs:
    """q, k, v, beta, decay of two batches and three heads; keys short enough that a frame contracts the state."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(2, 3, frames, *shape, generator=generator)

    k = normal(tokens, keys).relu() * (keys * tokens) ** -0.5
    return normal(tokens, keys), k, normal(tokens, values), normal(tokens).sigmoid(), normal().sigmoid()


def draw_state(keys: int, values: int) -> Tensor:
    return torch.randn(2, 3, values, keys, generator=torch.Generator().manual_seed(9))


def one_by_one(inputs: Inputs, state: Tensor | None = None, reverse: bool = False) -> tuple[Tensor, Tensor]:
    """The definition: a frame's state decays, then every token moves what its key reads towards its value.

    All tokens of a frame read the same decayed state. In reverse a frame is read before it is written.
    """
    q, k, v, beta, decay = (x.double() for x in inputs)
    batch, heads, frames, tokens, keys = k.shape
    out = q.new_zeros(batch, heads, frames, tokens, v.shape[-1])
    last = q.new_zeros(batch, heads, v.shape[-1], keys) if state is None else state.double()
    for b, h in itertools.product(range(batch), range(heads)):
        a = last[b, h]
        for t in reversed(range(frames)) if reverse else range(frames):
            read = torch.stack([a @ q[b, h, t, i] for i in range(tokens)])
            decayed = decay[b, h, t] * a
            a = decayed.clone()
            for i in range(tokens):
                miss = v[b, h, t, i] - decayed @ k[b, h, t, i]
                a = a + beta[b, h, t, i] * torch.outer(miss, k[b, h, t, i])
            out[b, h, t] = read if reverse else torch.stack([a @ q[b, h, t, i] for i in range(tokens)])
        last = last.index_put((torch.tensor(b), torch.tensor(h)), a)
    return out, last


def assert_equal(got: Tensor, expected: Tensor, tolerance: float = 2e-6) -> None:
    assert got.shape == expected.shape
    assert got.dtype == torch.float32
    assert (got.double() - expected).abs().max() <= tolerance * max(1.0, expected.abs().max().item())


sizes = st.integers(1, 7)


@settings(max_examples=25, deadline=None)
@given(sizes, sizes, sizes, sizes, st.booleans(), st.booleans(), st.integers(0, 1000))
def test_equals_the_definition_at_any_size(frames, tokens, keys, values, reverse, seeded, seed) -> None:
    inputs = draw(frames, tokens, keys, values, seed=seed)
    state = draw_state(keys, values) if seeded else None
    out, last = delta_rule(*inputs, state, reverse=reverse)
    expected, expected_last = one_by_one(inputs, state, reverse)
    assert_equal(out, expected)
    assert_equal(last, expected_last)


def test_is_the_matrix_form_in_float64() -> None:
    # A_t = g A (I - K^T B K) + V^T B K is what the reference computes; in float64 the two agree to rounding
    inputs = draw(6, 5, 8, 4)
    q, k, v, beta, decay = (x.double() for x in inputs)
    state, out = q.new_zeros(2, 3, 4, 8), []
    for t in range(6):
        weighted = k[:, :, t] * beta[:, :, t, :, None]
        keep = decay[:, :, t, None, None] * (torch.eye(8).double() - k[:, :, t].mT @ weighted)
        state = state @ keep + v[:, :, t].mT @ weighted
        out.append(q[:, :, t] @ state.mT)
    expected, last = one_by_one(inputs)
    assert (torch.stack(out, 2) - expected).abs().max() < 1e-10
    assert (state - last).abs().max() < 1e-10


@pytest.mark.parametrize("cut", [1, 3, 6])
def test_a_state_continues_where_it_was_cut(cut: int) -> None:
    inputs, state = draw(7, 3, 8, 5), draw_state(8, 5)
    out, last = delta_rule(*inputs, state)
    first, between = delta_rule(*(x[:, :, :cut] for x in inputs), state)
    second, end = delta_rule(*(x[:, :, cut:] for x in inputs), between)
    torch.testing.assert_close(torch.cat([first, second], 2), out, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(end, last, atol=1e-6, rtol=1e-6)


def test_states_are_those_after_each_frame() -> None:
    inputs = draw(5, 3, 8, 5)
    states = delta_rule_states(*inputs[1:])
    for t in range(5):
        torch.testing.assert_close(states[:, :, t], delta_rule(*(x[:, :, : t + 1] for x in inputs))[1])


@pytest.mark.parametrize("moved", range(5))
def test_a_frame_never_reads_itself_in_reverse(moved: int) -> None:
    q, k, v, beta, decay = draw(5, 3, 8, 5)
    changed = [x.clone() for x in (k, v, beta, decay)]
    for x in changed:
        x[:, :, moved] *= 0.5
    before = delta_rule(q, k, v, beta, decay, reverse=True)[0]
    after = delta_rule(q, *changed, reverse=True)[0]
    assert torch.equal(before[:, :, moved:], after[:, :, moved:])
    assert all(not torch.equal(before[:, :, t], after[:, :, t]) for t in range(moved))


@pytest.mark.parametrize("moved", range(5))
def test_a_frame_never_reads_later_ones_forwards(moved: int) -> None:
    q, k, v, beta, decay = draw(5, 3, 8, 5)
    changed = [x.clone() for x in (k, v, beta, decay)]
    for x in changed:
        x[:, :, moved] *= 0.5
    before, after = delta_rule(q, k, v, beta, decay)[0], delta_rule(q, *changed)[0]
    assert torch.equal(before[:, :, :moved], after[:, :, :moved])
    assert all(not torch.equal(before[:, :, t], after[:, :, t]) for t in range(moved, 5))


@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_equal_those_of_the_definition(reverse: bool) -> None:
    inputs, state = draw(4, 3, 6, 5), draw_state(6, 5)
    weights = torch.randn(2, 3, 4, 3, 5, generator=torch.Generator().manual_seed(3)).double()

    def gradients(rule: Callable[..., tuple[Tensor, Tensor]]) -> tuple[Tensor, ...]:
        leaves = [x.clone().requires_grad_() for x in (*inputs, state)]
        out, last = rule(leaves)
        return torch.autograd.grad((out.double() * weights).sum() + last.double().square().sum(), leaves)

    got = gradients(lambda leaves: delta_rule(*leaves, reverse=reverse))
    expected = gradients(lambda leaves: one_by_one(tuple(leaves[:5]), leaves[5], reverse))
    for x, y in zip(got, expected, strict=True):
        torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-5)


def test_half_precision_inputs_are_computed_in_float32() -> None:
    inputs = draw(5, 3, 8, 5)
    half = tuple(x.bfloat16() for x in inputs)
    out, last = delta_rule(*half)
    expected, expected_last = one_by_one(tuple(x.float() for x in half))
    assert_equal(out, expected)
    assert_equal(last, expected_last)


def test_long_sequences_stay_bounded() -> None:
    # keys scaled by (keys * tokens)^-1/2 make every frame a contraction: that is why the model scales them
    q, k, v, beta, _ = draw(500, 4, 8, 5)
    states = delta_rule_states(k, v, beta, torch.ones(2, 3, 500))
    assert states.abs().max() < 100
    assert torch.isfinite(q @ states.mT).all()


def test_nothing_given_is_changed() -> None:
    inputs, state = draw(4, 3, 8, 5), draw_state(8, 5)
    copies = [x.clone() for x in (*inputs, state)]
    delta_rule(*inputs, state)
    delta_rule(*inputs, state, reverse=True)
    assert all(torch.equal(x, y) for x, y in zip((*inputs, state), copies, strict=True))


@pytest.mark.parametrize("rule", [delta_rule, delta_rule_states])
def test_an_unknown_backend_raises_and_names_what_there_is(rule: Callable[..., object]) -> None:
    inputs = draw(2, 2, 4, 4)
    with pytest.raises(ValueError, match=r"expected one of .*torch.*got 'abacus'"):
        rule(*inputs[0 if rule is delta_rule else 1 :], backend="abacus")
