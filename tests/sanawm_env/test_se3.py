"""Rigid motions: the exponential against the matrix exponential, and poses that stay rigid."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sanawm_env import se3


def matrix_exponential(twist: np.ndarray) -> np.ndarray:
    """From its power series, the definition; torch.linalg.matrix_exp is off by 1e-12 at small angles."""
    vx, vy, vz, x, y, z = twist
    generator = np.array([[0, -z, y, vx], [z, 0, -x, vy], [-y, x, 0, vz], [0, 0, 0, 0]])
    term, total = np.eye(4), np.eye(4)
    for order in range(1, 80):
        term = term @ generator / order
        total = total + term
    return total


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=6, max_size=6), st.sampled_from([0.0, 1e-9, 1e-4, 0.009, 0.0101, 0.1, 1.0]))
def test_the_exponential_is_the_matrix_exponential(numbers: list[float], scale: float) -> None:
    twist = np.array(numbers) * np.array([1, 1, 1, scale, scale, scale])  # across the switch to the series
    np.testing.assert_allclose(se3.exp(twist), matrix_exponential(twist), rtol=0, atol=1e-12)


def test_the_exponential_of_a_half_turn_and_more() -> None:
    for angle in (np.pi, 2 * np.pi, 7.5):
        twist = np.array([0.3, -1.0, 2.0, 0, angle, 0])
        np.testing.assert_allclose(se3.exp(twist), matrix_exponential(twist), atol=1e-10)


def test_ten_thousand_steps_stay_rigid() -> None:
    twists = np.random.default_rng(0).normal(size=(10_000, 6))
    rotation = se3.integrate(np.eye(4), twists, fps=16.0)[-1, :3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) > 0
