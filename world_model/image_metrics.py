"""How far pictures are from true ones: PSNR, SSIM, gradient energy, and the Fréchet distance of feature sets.

Pictures are (T, H, W, 3) float in [0, 255]; all results are one number a picture unless said otherwise.
"""

import torch
from torch import Tensor

from world_model.errors import InputError

PSNR_CEILING = 60.0  # dB, what equal pictures get: their PSNR is infinite and would swallow any mean
SSIM_WINDOW, SSIM_SIGMA = 11, 1.5  # Wang et al., Image quality assessment, 2004
SHRINKAGE = 0.1
LUMA = (0.299, 0.587, 0.114)


def luma(pictures: Tensor) -> Tensor:
    """(T, H, W, 3) -> (T, H, W), BT.601."""
    return pictures @ pictures.new_tensor(LUMA)


def psnr(pictures: Tensor, truth: Tensor, mask: Tensor | None = None) -> Tensor:
    """Peak signal to noise ratio (T,) in dB over all pixels, or over those of mask (T, H, W) bool.

    From the mean squared error of the three channels together; at most PSNR_CEILING; NaN where a mask is empty.
    """
    error = (pictures - truth).square().mean(-1)
    return (10 * torch.log10(255**2 / masked_mean(error, mask))).clamp_max(PSNR_CEILING)


def ssim(pictures: Tensor, truth: Tensor, mask: Tensor | None = None) -> Tensor:
    """Structural similarity (T,) of the luma: gaussian window 11 x 11, sigma 1.5, K = 0.01, 0.03.

    Averaged over the window centres whose window lies inside the picture, or over those of them that are in mask.
    """
    margin = SSIM_WINDOW // 2
    a, b = luma(pictures), luma(truth)
    means = window_mean(torch.stack([a, b, a * a, b * b, a * b], 1))  # (T, 5, H - 10, W - 10)
    mean_a, mean_b, square_a, square_b, product = means.unbind(1)
    var_a, var_b, cov = square_a - mean_a**2, square_b - mean_b**2, product - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
    similarity = similarity / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return masked_mean(similarity, None if mask is None else mask[:, margin:-margin, margin:-margin])


def window_mean(maps: Tensor) -> Tensor:
    """Gaussian means (T, K, H - 10, W - 10) of maps (T, K, H, W)."""
    down, across = (window_matrix(side).to(maps) for side in maps.shape[-2:])
    return down @ maps @ across.T  # ten times faster here than convolutions of one channel


def window_matrix(side: int) -> Tensor:
    """The window along one side, as a band (side - 10, side)."""
    offset = torch.arange(side)[None] - torch.arange(side - SSIM_WINDOW + 1)[:, None] - SSIM_WINDOW // 2
    taps = torch.exp(-offset.float().square() / (2 * SSIM_SIGMA**2)) * (offset.abs() <= SSIM_WINDOW // 2)
    return taps / taps.sum(1, keepdim=True)


def gradient_energy(pictures: Tensor) -> Tensor:
    """Mean |dx| + |dy| of the luma, (T,): what blur takes away."""
    light = luma(pictures)
    return light.diff(dim=2).abs().mean((1, 2)) + light.diff(dim=1).abs().mean((1, 2))


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Means (T,) of maps (T, H, W), over mask if there is one."""
    if mask is None:
        return values.mean((1, 2))
    return (values * mask).sum((1, 2)) / mask.sum((1, 2))


def frechet_distance(features: Tensor, truth: Tensor) -> float:
    """Squared Fréchet distance of two sets of features (n, d), (m, d), each taken for a gaussian.

    |mean difference|^2 + tr(A + B - 2 (A B)^(1/2)) in float64; the covariances are shrunk by SHRINKAGE towards their
    diagonal, since the sets are small. Raises InputError for sets of fewer than two or of different widths.
    """
    if features.dim() != 2 or features.shape[1:] != truth.shape[1:] or min(len(features), len(truth)) < 2:
        raise InputError(
            f"features: expected (n, d) and (m, d), n, m >= 2, got {tuple(features.shape)}, {tuple(truth.shape)}"
        )
    a, b = features.double(), truth.double()
    cov_a, cov_b = covariance(a), covariance(b)
    root = matrix_root(cov_a)
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp_min(0).sqrt().sum()
    gap = (a.mean(0) - b.mean(0)).square().sum()
    return max(0.0, float(gap + cov_a.trace() + cov_b.trace() - 2 * cross))  # rounding may pass below zero


def covariance(features: Tensor) -> Tensor:
    """(n, d) -> (d, d), shrunk."""
    cov = torch.cov(features.T).reshape(features.shape[1], -1)
    return (1 - SHRINKAGE) * cov + SHRINKAGE * cov.diagonal().diag()


def matrix_root(matrix: Tensor) -> Tensor:
    """Square root of a symmetric positive semi-definite (d, d)."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T
