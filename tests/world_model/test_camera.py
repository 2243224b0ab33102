"""Camera paths as the transformer reads them: what is packed where, and what is refused."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from world_model.camera import (
    camera_rows,
    cell_intrinsics,
    chunk_plucker,
    pack_plucker,
    plucker_rays,
    relative_to_first,
)
from world_model.checks import check_intrinsics, check_poses
from world_model.errors import InputError
from world_model.geometry import invert_rigid
from world_model.live_camera import chunk_camera, start_camera

GRID = 2, 3
LENS = torch.tensor([[2.0, 2.5, 1.5, 1.0]])


def path(frames: int, seed: int = 0) -> Tensor:
    """(1, frames, 4, 4): turning and moving, from the identity."""
    generator = torch.Generator().manual_seed(seed)
    pose, poses = torch.eye(4), []
    for _ in range(frames):
        poses.append(pose)
        x, y, z = (0.2 * torch.randn(3, generator=generator)).tolist()
        skew = torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
        step = torch.eye(4)
        step[:3, :3], step[:3, 3] = torch.linalg.matrix_exp(skew), 0.3 * torch.randn(3, generator=generator)
        pose = pose @ step
    return torch.stack(poses)[None]


def packed_frames(frames: int, stride: int) -> list[list[int]]:
    """Which raw frames each latent looks at, read off a clip whose rays hold their own frame number."""
    rays = torch.arange(float(frames)).view(1, frames, 1, 1, 1).expand(1, frames, 6, *GRID)
    packed = pack_plucker(rays, stride)
    assert packed.shape[:2] == (1, 6 * stride)
    assert packed.shape[3:] == GRID
    groups = packed.unflatten(1, (stride, 6))  # frame-major: six channels of one frame, then of the next
    assert (groups == groups[:, :, :1, :, :1, :1]).all()
    return groups[0, :, 0, :, 0, 0].T.int().tolist()


def test_packing_of_one_two_and_three_latents() -> None:
    assert packed_frames(1, 8) == [[0] * 8]
    assert packed_frames(9, 8) == [[0, 1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 6, 7, 8]]
    assert packed_frames(17, 8)[2] == [9, 10, 11, 12, 13, 14, 15, 16]
    assert packed_frames(17, 8)[:2] == packed_frames(9, 8)
    assert packed_frames(9, 4) == [[0, 1, 2, 3], [1, 2, 3, 4], [5, 6, 7, 8]]


def test_missing_frames_at_the_end_repeat_the_last() -> None:
    assert packed_frames(4, 8) == [[0, 1, 2, 3, 3, 3, 3, 3]]
    assert packed_frames(12, 8) == packed_frames(9, 8)
    assert packed_frames(2, 4) == [[0, 1, 1, 1]]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 9))
def test_packing_is_its_definition(frames: int, stride: int) -> None:
    latents = (frames - 1) // stride + 1
    starts = [max(0, stride * k - (stride - 1)) for k in range(latents)]
    assert packed_frames(frames, stride) == [[min(s + i, frames - 1) for i in range(stride)] for s in starts]


def test_a_plucker_ray_is_direction_and_moment() -> None:
    poses = path(4)
    rays = plucker_rays(poses, LENS[:, None].expand(-1, 4, -1), GRID)
    assert rays.shape == (1, 4, 6, *GRID)
    frame, row, column = 3, 1, 2
    fx, fy, cx, cy = LENS[0].tolist()
    ray = poses[0, frame, :3, :3] @ torch.tensor([(column - cx) / fx, (row - cy) / fy, 1.0])
    direction = ray / ray.norm()
    moment = torch.linalg.cross(poses[0, frame, :3, 3], direction)
    torch.testing.assert_close(rays[0, frame, :, row, column], torch.cat([direction, moment]))


@pytest.mark.parametrize("latents", [1, 3])
def test_a_live_chunk_is_a_slice_of_the_whole_clip(latents: int) -> None:
    stride, earlier = 4, 2
    poses = path(1 + stride * (earlier + latents))
    rays = plucker_rays(poses, LENS[:, None].expand(-1, poses.shape[1], -1), GRID)
    whole = pack_plucker(rays, stride)
    rows = camera_rows(poses[:, ::stride], LENS[:, None])
    done = 1 + stride * earlier
    camera, plucker = chunk_camera(poses[:, done - 1], poses[:, done:], LENS, GRID, stride, "start")
    torch.testing.assert_close(plucker, whole[:, :, 1 + earlier :], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(camera, rows[:, 1 + earlier :])
    torch.testing.assert_close(chunk_plucker(rays[:, 1:], stride), whole[:, :, 1:])


def test_the_start_latent_looks_ahead_or_holds() -> None:
    stride, poses = 4, path(9)
    whole = pack_plucker(plucker_rays(poses, LENS[:, None].expand(-1, 9, -1), GRID), stride)
    camera, plucker = start_camera(LENS, GRID, stride, poses[:, :stride])
    torch.testing.assert_close(plucker, whole[:, :, :1])
    torch.testing.assert_close(camera, camera_rows(poses[:, :1], LENS[:, None]))
    camera_held, held = start_camera(LENS, GRID, stride)
    assert torch.equal(camera_held, camera)
    alone = pack_plucker(plucker_rays(poses[:, :1], LENS[:, None], GRID), stride)  # one frame, repeated
    torch.testing.assert_close(held, alone)
    assert not torch.allclose(held, plucker)


def test_rays_can_be_seen_from_the_frame_before() -> None:
    stride, poses = 4, path(9)
    camera, plucker = chunk_camera(poses[:, 0], poses[:, 1:], LENS, GRID, stride, "previous")
    rows, _ = chunk_camera(poses[:, 0], poses[:, 1:], LENS, GRID, stride, "start")
    assert torch.equal(camera, rows)  # the camera branch is always relative to the start
    for latent in range(2):
        last, own = poses[:, stride * latent], poses[:, stride * latent + 1 : stride * (latent + 1) + 1]
        relative = invert_rigid(last[:, None]) @ own
        rays = plucker_rays(relative, LENS[:, None].expand(-1, stride, -1), GRID)
        torch.testing.assert_close(plucker[:, :, latent : latent + 1], chunk_plucker(rays, stride))


def test_rays_from_the_frame_before_do_not_know_where_the_world_began() -> None:
    poses, stride = path(9), 4
    elsewhere = path(3, seed=5)[:, 2:] @ poses
    near, far = (chunk_camera(p[:, 0], p[:, 1:], LENS, GRID, stride, "previous")[1] for p in (poses, elsewhere))
    torch.testing.assert_close(near, far, atol=1e-5, rtol=1e-5)


def test_a_camera_row_is_a_pose_and_a_lens() -> None:
    poses = path(3)
    rows = camera_rows(poses, LENS[:, None])
    assert rows.shape == (1, 3, 20)
    assert torch.equal(rows[0, 2, :16].view(4, 4), poses[0, 2])
    assert torch.equal(rows[0, 2, 16:], LENS[0])


def test_intrinsics_scale_with_the_grid() -> None:
    lens = torch.tensor([[640.0, 352.0, 320.0, 176.0]])
    expected = torch.tensor([[20.0, 11.0, 10.0, 5.5]])
    torch.testing.assert_close(cell_intrinsics(lens, (704, 1280), (22, 40)), expected)


def test_poses_become_relative_to_the_first() -> None:
    poses = path(5)
    elsewhere = path(3, seed=5)[:, 2:] @ poses
    torch.testing.assert_close(relative_to_first(elsewhere), poses, atol=1e-5, rtol=1e-5)
    assert torch.equal(relative_to_first(elsewhere)[:, 0], torch.eye(4)[None])


def bad_poses() -> dict[str, tuple[Tensor, str]]:
    nan, stretched, mirrored, shifted = (path(3) for _ in range(4))
    nan[0, 1, 0, 3] = math.nan
    stretched[0, 2, :3, :3] *= 1.01
    mirrored[0, 1, :3, 0] *= -1
    shifted[0, 1, 3, 0] = 0.5
    return {
        "nan": (nan, "expected finite numbers, got NaN"),
        "stretched": (stretched, "expected rigid transforms .* got an orthogonality error of 0.02"),
        "mirrored": (mirrored, "expected rigid transforms .*determinant"),
        "last row": (shifted, "expected rigid transforms .*last row off by 0.5"),
    }


@pytest.mark.parametrize("kind", bad_poses())
def test_what_is_no_rigid_transform_is_refused(kind: str) -> None:
    poses, message = bad_poses()[kind]
    with pytest.raises(InputError, match=message):
        check_poses(poses)


def test_rigid_transforms_are_taken() -> None:
    check_poses(path(50))


@pytest.mark.parametrize("lens", [[0.0, 1, 1, 1], [1, -2.0, 1, 1], [1, 1, math.nan, 1], [math.inf, 1, 1, 1]])
def test_a_lens_without_focal_length_is_refused(lens: list[float]) -> None:
    with pytest.raises(InputError, match="expected finite fx, fy, cx, cy with positive focal lengths, got"):
        check_intrinsics(torch.tensor(lens))


def test_autocast_does_not_round_cameras() -> None:
    torch.manual_seed(0)
    poses = torch.eye(4).repeat(1, 9, 1, 1)
    poses[..., :3, 3] = torch.randn(9, 3)
    lens = torch.tensor([[40.0, 42.0, 3.0, 2.0]])

    def cameras() -> tuple[torch.Tensor, ...]:
        later = chunk_camera(poses[:, 0], poses[:, 1:], lens, (4, 6), 4, "previous")
        return (*start_camera(lens, (4, 6), 4, poses[:, :4]), *later)

    expected = cameras()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = cameras()
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)
