"""A user's picture and lens, made to fit the model's frame: resized to cover, then cropped at the centre.

The intrinsics follow the same rule, so a pixel keeps its ray (stage-1 architecture, 7.1).
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor

from world_model.checks import check_intrinsics
from world_model.errors import InputError

DEFAULT_FIELD_OF_VIEW = math.radians(70.0)  # horizontal, of the picture as it is given


def default_intrinsics(height: int, width: int) -> Tensor:
    """fx, fy, cx, cy in pixels of a centred camera with square pixels and DEFAULT_FIELD_OF_VIEW."""
    focal = width / 2 / math.tan(DEFAULT_FIELD_OF_VIEW / 2)
    return torch.tensor([focal, focal, width / 2, height / 2])


def fit_image(image: ArrayLike, intrinsics: ArrayLike | None, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """An (H, W, 3) uint8 picture -> (h, w, 3) uint8 of `size`, and its (4,) float32 intrinsics in those pixels.

    Raises InputError for any other shape or dtype, for a side under 8 pixels, and for unusable intrinsics.
    """
    picture = check_image(image)
    height, width = picture.shape[:2]
    lens = default_intrinsics(height, width) if intrinsics is None else torch.tensor(np.asarray(intrinsics)).float()
    if lens.shape != (4,):
        raise InputError(f"intrinsics: expected (4,) fx, fy, cx, cy in pixels, got shape {tuple(lens.shape)}")
    check_intrinsics(lens)
    if (height, width) == size:
        return picture, lens
    scale = max(size[0] / height, size[1] / width)
    covered = max(round(height * scale), size[0]), max(round(width * scale), size[1])
    pixels = picture.permute(2, 0, 1)[None].float()
    pixels = F.interpolate(pixels, covered, mode="bicubic", antialias=True, align_corners=False)
    top, left = (covered[0] - size[0]) // 2, (covered[1] - size[1]) // 2
    pixels = pixels[0, :, top : top + size[0], left : left + size[1]]
    stretch = torch.tensor([covered[1] / width, covered[0] / height] * 2)
    lens = lens * stretch - torch.tensor([0.0, 0.0, left, top])
    return pixels.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0), lens


def check_image(image: ArrayLike) -> Tensor:
    """(H, W, 3) uint8 as a tensor, or InputError."""
    try:
        picture = image.detach().cpu() if isinstance(image, Tensor) else torch.from_numpy(np.array(image))
    except (TypeError, ValueError) as error:
        raise InputError(f"image: expected (H, W, 3) uint8, got {type(image).__name__}: {error}") from error
    if picture.dtype != torch.uint8 or picture.dim() != 3 or picture.shape[-1] != 3:
        raise InputError(f"image: expected (H, W, 3) uint8, got {tuple(picture.shape)} {picture.dtype}")
    if min(picture.shape[:2]) < 8:
        raise InputError(f"image: expected at least 8x8 pixels, got {tuple(picture.shape[:2])}")
    return picture


def fit_images(
    images: Sequence[ArrayLike] | np.ndarray, intrinsics: ArrayLike | None, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """B pictures, which may differ in size -> (B, h, w, 3) uint8 and (B, 4) float32.

    intrinsics: None, (4,) for all, or (B, 4), in pixels of the pictures as they are given.
    """
    lenses = [None] * len(images)
    if intrinsics is not None:
        given = np.asarray(intrinsics, dtype=np.float32)
        if given.shape not in ((4,), (len(images), 4)):
            raise InputError(f"intrinsics: expected (4,) or ({len(images)}, 4), got shape {given.shape}")
        lenses = list(np.broadcast_to(given, (len(images), 4)))
    fitted = [fit_image(image, lens, size) for image, lens in zip(images, lenses, strict=True)]
    return torch.stack([f[0] for f in fitted]), torch.stack([f[1] for f in fitted])
