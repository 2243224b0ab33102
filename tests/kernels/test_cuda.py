"""The delta rule on a GPU against the CPU, gradients included.

unittest, not pytest: `make gpu-check` runs this file on machines that have no pytest.
"""

import unittest

import torch
from torch import Tensor

from kernels.delta_rule import BACKENDS, delta_rule

B, H, T, S, D, V = 2, 3, 5, 17, 8, 11  # odd on purpose


def inputs(device: str) -> list[Tensor]:
    """q, k, v, beta, decay, state: the same numbers on every device, with gradients."""
    draw = torch.Generator().manual_seed(3)
    shapes = [(B, H, T, S, D), (B, H, T, S, D), (B, H, T, S, V), (B, H, T, S), (B, H, T), (B, H, V, D)]
    q, k, v, beta, decay, state = (torch.randn(shape, generator=draw) for shape in shapes)
    k = torch.nn.functional.normalize(k, dim=-1) / S**0.5
    return [x.to(device).requires_grad_() for x in (q, k, v, beta.sigmoid(), decay.sigmoid(), state)]


def results(device: str, *, reverse: bool, backend: str) -> list[Tensor]:
    """out, final state, and the gradients of all inputs, on the CPU."""
    given = inputs(device)
    out, state = delta_rule(*given, reverse=reverse, backend=backend)
    (out.square().sum() + state.square().sum()).backward()
    return [x.detach().cpu() for x in (out, state, *(x.grad for x in given if x.grad is not None))]


@unittest.skipUnless(torch.cuda.is_available(), "needs a CUDA device")
class DeltaRuleOnCuda(unittest.TestCase):
    def test_every_backend_equals_the_specification_on_the_cpu(self) -> None:
        for backend in BACKENDS:
            for reverse in (False, True):
                with self.subTest(backend=backend, reverse=reverse):
                    expected = results("cpu", reverse=reverse, backend="torch")
                    got = results("cuda", reverse=reverse, backend=backend)
                    assert len(expected) == len(got) >= 7
                    for want, have in zip(expected, got, strict=True):
                        torch.testing.assert_close(have, want, rtol=1e-4, atol=1e-5)


if __name__ == "__main__":
    unittest.main()
