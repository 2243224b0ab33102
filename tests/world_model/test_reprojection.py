"""Which pixels the start frame saw, and what a rotation makes of it, in a room whose rays can be cast."""

import numpy as np
import pytest
import torch

from tests.world_model.box_room import cast, lens, path, render
from world_model.image_metrics import psnr
from world_model.reprojection import pixel_rays_z1, seen_by_start, warp_start

SIZE = 64
SOME = slice(1, None, 3)  # of the rows and of the columns: every ray is cast alone


def tensors(twist: list[float], frames: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Frames, depth, poses and intrinsics of the box room."""
    poses, intrinsics = path(twist, frames), lens(SIZE)
    pictures, depth = render(poses, intrinsics, SIZE)
    lenses = torch.from_numpy(np.tile(intrinsics, (frames, 1)))
    return torch.from_numpy(pictures), torch.from_numpy(depth), torch.from_numpy(poses), lenses


def truly_seen(depth: np.ndarray, pose: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """By ray casting: the start camera's ray towards a pixel's point ends at that point, inside the frame."""
    rays = pixel_rays_z1(torch.from_numpy(intrinsics)[None], SIZE, SIZE)[0].numpy()
    points = (rays * depth[..., None])[SOME, SOME] @ pose[:3, :3].T + pose[:3, 3]
    x, y = (points[..., i] / points[..., 2] * intrinsics[i] + intrinsics[2 + i] for i in range(2))
    inside = (points[..., 2] > 0) & (x >= 0) & (x < SIZE) & (y >= 0) & (y < SIZE)
    first = np.array(
        [
            [cast(np.eye(4), np.array([1.0, 1.0, -u, -v]), 1, 0, 0)[1][0, 0] for u, v in zip(*row, strict=True)]
            for row in zip(points[..., 0] / points[..., 2], points[..., 1] / points[..., 2], strict=True)
        ]
    )
    return inside & (np.abs(first - points[..., 2]) < 0.05)


@pytest.mark.parametrize("twist", [[0.6, 0, 0, 0, 0, 0], [0.3, 0, -0.4, 0, -30, 5]])
def test_seen_pixels_are_those_that_rays_reach(twist: list[float]) -> None:
    _, depth, poses, lenses = tensors(twist, 13)
    found = seen_by_start(depth, poses, lenses)[-1].numpy()[SOME, SOME]
    expected = truly_seen(depth[-1].numpy(), poses[-1].numpy().astype(np.float64), lens(SIZE))
    assert 0.2 < expected.mean() < 0.98, "the camera should lose sight of something and not of everything"
    assert (found != expected).mean() < 0.02, "beside depth edges, where the nearest pixel decides, all agree"


def test_something_hidden_in_the_start_frame_is_not_seen() -> None:
    _, depth, poses, lenses = tensors([1.6, 0, 0, 0, 0, 0], 9)
    found = seen_by_start(depth, poses, lenses)[-1]
    behind = depth[-1] > 3.5  # the far wall
    block = depth[-1] < 2.4
    assert found[block & found].any()
    assert (behind & ~found)[:, SIZE // 4 : SIZE // 2].any(), "what the block hid comes into view beside it"


def test_a_camera_at_rest_sees_what_the_start_saw() -> None:
    _, depth, poses, lenses = tensors([0, 0, 0, 0, 0, 0], 2)
    assert seen_by_start(depth, poses, lenses).all()


def test_the_rotation_warp_is_the_truth_where_the_camera_only_turns() -> None:
    frames, depth, poses, lenses = tensors([0, 0, 0, 10, 25, 5], 9)
    warped = warp_start(frames[0], poses, lenses)
    assert torch.allclose(warped[0], frames[0].float(), atol=1e-2)
    seen = seen_by_start(depth, poses, lenses)
    assert 0.5 < seen[-1].float().mean() < 0.9
    assert psnr(warped, frames.float(), seen)[-1] > 28
    assert psnr(warped, frames.float())[-1] < 25, "what the start did not see is not known"


def test_the_rotation_warp_repeats_the_border_outside() -> None:
    frames, _, poses, lenses = tensors([0, 0, 0, 0, 120, 0], 17)
    warped = warp_start(frames[0], poses, lenses)[-1]  # 120 degrees to the right: nothing of the start is left
    border = frames[0, :, -1].float()
    assert all((border - pixel).abs().sum(1).min() < 1 for pixel in warped.flatten(0, 1)[:: SIZE + 1])
