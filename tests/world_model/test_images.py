"""Start pictures: what is refused, and that a pixel keeps its ray through resize and crop."""

import math

import numpy as np
import pytest
import torch

from world_model.errors import InputError
from world_model.images import check_image, default_intrinsics, fit_image, fit_images

SIZE = 64, 96


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def columns_and_rows(height: int, width: int) -> np.ndarray:
    """A picture whose red is its column and whose green is its row, at pixel centres, scaled to 0..200."""
    across, down = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    red, green = np.broadcast_to(across, (height, width)), np.broadcast_to(down[:, None], (height, width))
    return np.round(200 * np.stack([red, green, 0 * red], -1)).astype(np.uint8)


def test_a_picture_that_fits_is_left_alone() -> None:
    image, lens = picture(*SIZE), [50.0, 51.0, 47.0, 33.0]
    fitted, kept = fit_image(image, lens, SIZE)
    assert torch.equal(fitted, torch.from_numpy(image))
    assert kept.tolist() == lens


def test_the_default_lens_sees_seventy_degrees_of_the_picture_as_given() -> None:
    for height, width in ((100, 300), (480, 640)):
        fx, fy, cx, cy = default_intrinsics(height, width).tolist()
        assert math.degrees(2 * math.atan(width / 2 / fx)) == pytest.approx(70, abs=1e-4)
        assert (fy, cx, cy) == (fx, width / 2, height / 2)
    _, lens = fit_image(picture(100, 300), None, SIZE)  # cropped at the sides: the model sees less
    assert math.degrees(2 * math.atan(SIZE[1] / 2 / lens[0].item())) < 60
    assert lens[2:].tolist() == pytest.approx([SIZE[1] / 2, SIZE[0] / 2], abs=0.5)


@pytest.mark.parametrize(("height", "width"), [(128, 192), (200, 210), (150, 600), (40, 50), (65, 96)])
def test_a_pixel_keeps_its_ray(height: int, width: int) -> None:
    given = torch.tensor([0.8 * width, 0.9 * width, 0.45 * width, 0.6 * height])
    fitted, lens = fit_image(columns_and_rows(height, width), given, SIZE)
    assert fitted.shape == (*SIZE, 3)
    assert fitted.dtype == torch.uint8
    rows, columns = torch.meshgrid(*(torch.arange(n) + 0.5 for n in SIZE), indexing="ij")
    before = fitted.float()[..., :2] / 200 * torch.tensor([width, height])  # where each pixel was
    ray_before = (before - given[2:]) / given[:2]
    ray_after = (torch.stack([columns, rows], -1) - lens[2:]) / lens[:2]
    inside = (slice(4, -4), slice(4, -4))
    grain = max(width, height) / 200 / given[:2].min().item()  # one level of the picture, as a ray
    assert (ray_before[inside] - ray_after[inside]).abs().max() < 1.5 * grain


def test_the_picture_covers_the_frame_and_no_more() -> None:
    wide, _ = fit_image(columns_and_rows(64, 200), None, SIZE)
    assert wide[:, 0, 0].float().mean() == pytest.approx(200 * 52 / 200, abs=2)  # cut at both sides alike
    assert wide[:, -1, 0].float().mean() == pytest.approx(200 * 148 / 200, abs=2)
    assert wide[0, :, 1].float().mean() < 3  # the whole height
    assert wide[-1, :, 1].float().mean() > 197


def test_pictures_of_different_sizes_make_one_batch() -> None:
    images = [picture(64, 96), picture(100, 90), torch.from_numpy(picture(30, 70))]
    frames, lenses = fit_images(images, None, SIZE)
    assert frames.shape == (3, *SIZE, 3)
    assert lenses.shape == (3, 4)
    for i, image in enumerate(images):
        alone, lens = fit_image(image, None, SIZE)
        assert torch.equal(frames[i], alone)
        assert torch.equal(lenses[i], lens)


def test_a_lens_serves_all_pictures_or_each_has_its_own() -> None:
    images, one = [picture(*SIZE)] * 2, [50.0, 50.0, 48.0, 32.0]
    assert fit_images(images, one, SIZE)[1].tolist() == [one, one]
    each = [one, [60.0, 60.0, 40.0, 30.0]]
    assert fit_images(images, each, SIZE)[1].tolist() == each


@pytest.mark.parametrize(
    ("image", "got"),
    [
        (picture(64, 96)[..., 0], r"\(64, 96\) torch.uint8"),
        (picture(64, 96).astype(np.float32) / 255, r"\(64, 96, 3\) torch.float32"),
        (np.zeros((64, 96, 4), np.uint8), r"\(64, 96, 4\)"),
        (np.zeros((2, 64, 96, 3), np.uint8), r"\(2, 64, 96, 3\)"),
        (np.zeros((3, 64, 96), np.uint8), r"\(3, 64, 96\)"),
    ],
)
def test_another_shape_or_dtype_is_refused(image: np.ndarray, got: str) -> None:
    with pytest.raises(InputError, match=r"image: expected \(H, W, 3\) uint8, got " + got):
        check_image(image)


def test_a_picture_that_is_no_array_is_refused() -> None:
    with pytest.raises(InputError, match=r"image: expected \(H, W, 3\) uint8, got"):
        check_image("room.png")


def test_a_stamp_is_refused() -> None:
    with pytest.raises(InputError, match=r"at least 8x8 pixels, got \(7, 90\)"):
        fit_image(picture(7, 90), None, SIZE)


@pytest.mark.parametrize("lens", [[0.0, 50, 48, 32], [50, -1.0, 48, 32], [50, 50, math.nan, 32]])
def test_an_unusable_lens_is_refused(lens: list[float]) -> None:
    with pytest.raises(InputError, match="positive focal lengths, got"):
        fit_image(picture(*SIZE), lens, SIZE)


def test_lenses_of_another_shape_are_refused() -> None:
    with pytest.raises(InputError, match=r"intrinsics: expected \(4,\) .* got shape \(3, 3\)"):
        fit_image(picture(*SIZE), np.eye(3), SIZE)
    with pytest.raises(InputError, match=r"intrinsics: expected \(4,\) or \(2, 4\), got shape \(3, 4\)"):
        fit_images([picture(*SIZE)] * 2, np.ones((3, 4)), SIZE)
