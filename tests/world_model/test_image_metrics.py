"""Picture metrics against closed forms and plain loops."""

import math

import pytest
import torch

from world_model.errors import InputError
from world_model.image_metrics import PSNR_CEILING, frechet_distance, gradient_energy, luma, psnr, ssim


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 255


def test_psnr_of_a_constant_error() -> None:
    truth = noise(3, 16, 20, 3) * 0.5
    assert torch.allclose(psnr(truth + 8, truth), torch.full((3,), 20 * math.log10(255 / 8)))
    assert torch.equal(psnr(truth, truth), torch.full((3,), PSNR_CEILING))


def test_masked_psnr_sees_only_the_mask() -> None:
    truth = noise(2, 16, 16, 3) * 0.5
    pictures, mask = truth.clone(), torch.zeros(2, 16, 16, dtype=torch.bool)
    mask[0, :4] = True
    pictures[:, :4] += 4
    pictures[:, 4:] += 100
    found = psnr(pictures, truth, mask)
    assert found[0] == pytest.approx(20 * math.log10(255 / 4), abs=1e-3)
    assert found[1].isnan(), "an empty mask has no PSNR"


def test_ssim_of_flat_pictures() -> None:
    a, b, c1 = 100.0, 150.0, (0.01 * 255) ** 2
    found = ssim(torch.full((1, 20, 20, 3), a), torch.full((1, 20, 20, 3), b))
    assert found.item() == pytest.approx((2 * a * b + c1) / (a * a + b * b + c1), abs=1e-3)


def test_ssim_of_one_window_against_a_plain_sum() -> None:
    one, other = noise(1, 11, 11, 3), noise(1, 11, 11, 3, seed=1)
    x, y = (luma(p)[0].double() for p in (one, other))
    weights = torch.tensor([[math.exp(-(i * i + j * j) / 4.5) for i in range(-5, 6)] for j in range(-5, 6)]).double()
    weights /= weights.sum()
    mx, my = (weights * x).sum(), (weights * y).sum()
    vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
    cov = (weights * (x - mx) * (y - my)).sum()
    c1, c2 = 2.55**2, 7.65**2
    expected = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    assert ssim(one, other).item() == pytest.approx(float(expected), abs=1e-4)
    assert ssim(one, one).item() == pytest.approx(1, abs=1e-5)


def test_masked_ssim_sees_only_its_windows() -> None:
    truth = noise(1, 32, 32, 3)
    pictures, mask = truth.clone(), torch.zeros(1, 32, 32, dtype=torch.bool)
    pictures[:, :, 22:] = 0
    mask[:, :, :16] = True
    assert ssim(pictures, truth, mask).item() == pytest.approx(1, abs=1e-5)
    assert ssim(pictures, truth).item() < 0.8


def test_gradient_energy_of_a_ramp() -> None:
    ramp = (torch.arange(20.0) * 3)[None, None, :, None].expand(1, 16, 20, 3)
    assert gradient_energy(ramp).item() == pytest.approx(3, rel=1e-4)
    assert gradient_energy(ramp.transpose(1, 2) * 2).item() == pytest.approx(6, rel=1e-4)


def test_frechet_distance_in_closed_form() -> None:
    features = torch.randn(400, 6, generator=torch.Generator().manual_seed(0))
    shift = torch.tensor([1.0, 0, 0, -2, 0, 0.5])
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(features + shift, features) == pytest.approx(5.25, rel=1e-5)
    # One dimension: (difference of means)^2 + (difference of deviations)^2.
    narrow = features[:, :1]
    grown = frechet_distance(3 * narrow, narrow)
    assert grown == pytest.approx(float((2 * narrow.mean()) ** 2 + (2 * narrow.std()) ** 2), rel=1e-5)
    assert frechet_distance(features * 2, features) > frechet_distance(features * 1.2, features) > 0.05


def test_frechet_distance_of_fewer_features_than_dimensions_stays_finite() -> None:
    a, b = noise(5, 48), noise(5, 48, seed=1)
    assert math.isfinite(frechet_distance(a, b))


def test_features_that_do_not_compare() -> None:
    with pytest.raises(InputError, match=r"n, m >= 2, got \(1, 3\), \(4, 3\)"):
        frechet_distance(torch.zeros(1, 3), torch.zeros(4, 3))
