"""Rotations, rays and UCPE transforms against their definitions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from world_model.geometry import (
    Rope,
    camera_rays,
    invert_rigid,
    pixel_rays,
    project,
    ray_from_world,
    rigid,
    ropes,
    rotate,
)

GRID = 3, 5


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random_poses(*shape: int, seed: int = 0, reach: float = 3.0) -> Tensor:
    """Rigid transforms of any orientation, (..., 4, 4)."""
    turn, upper = torch.linalg.qr(draw(*shape, 3, 3, seed=seed))
    turn = turn * upper.diagonal(dim1=-2, dim2=-1).sign()[..., None, :]
    turn = turn * torch.linalg.det(turn)[..., None, None]
    return rigid(turn, reach * draw(*shape, 3, 1, seed=seed + 1))


def random_camera(batch: int, frames: int, seed: int = 0, reach: float = 3.0) -> Tensor:
    lens = torch.tensor([3.0, 2.5, 2.2, 1.4]) + 0.3 * draw(batch, frames, 4, seed=seed + 2)
    return torch.cat([random_poses(batch, frames, seed=seed, reach=reach).flatten(-2), lens], -1)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_a_rigid_inverse_undoes_a_transform(seed: int) -> None:
    poses = random_poses(4, seed=seed)
    torch.testing.assert_close(invert_rigid(poses) @ poses, torch.eye(4).expand(4, 4, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(invert_rigid(poses), torch.linalg.inv(poses), atol=1e-4, rtol=1e-4)


def test_rays_go_through_whole_cells() -> None:
    rays = pixel_rays(torch.tensor([2.0, 4.0, 1.0, 2.0]), *GRID)
    assert rays.shape == (*GRID, 3)
    torch.testing.assert_close(rays[2, 1], torch.tensor([0.0, 0.0, 1.0]))  # row cy, column cx: straight ahead
    expected = torch.tensor([(4 - 1) / 2, (0 - 2) / 4, 1.0])
    torch.testing.assert_close(rays[0, 4], expected / expected.norm())


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_a_ray_frame_is_rigid_and_looks_along_its_ray(seed: int) -> None:
    camera = random_camera(2, 3, seed=seed)
    transform = ray_from_world(camera, *GRID)
    pose = camera[..., :16].unflatten(-1, (4, 4))[:, :, None, None]
    rotation, centre = pose[..., :3, :3], pose[..., :3, 3:]
    turn = transform[..., :3, :3]
    torch.testing.assert_close(turn @ turn.mT, torch.eye(3).expand_as(turn), atol=1e-5, rtol=0)
    assert (torch.linalg.det(turn) > 0).all()
    ray = rotation @ pixel_rays(camera[..., 16:], *GRID)[..., None]
    ahead = torch.tensor([0.0, 0.0, 1.0])[:, None]
    torch.testing.assert_close(turn @ ray, ahead.expand_as(ray), atol=1e-5, rtol=0)
    at_origin = turn @ centre + transform[..., :3, 3:]
    torch.testing.assert_close(at_origin, torch.zeros_like(at_origin), atol=1e-4, rtol=0)
    down = rotation[..., 1:2].expand_as(ray)  # the ray's x axis is level: at a right angle to the camera's y
    torch.testing.assert_close((turn @ down)[..., 0, :], torch.zeros(2, 3, *GRID, 1), atol=1e-5, rtol=0)


def angles(index: Tensor, head_dim: int) -> Tensor:
    """RoPE by its definition, (T, Y, X, D/2) in float64: time, row and column, each with its own frequencies."""
    space = 2 * (head_dim // 6)
    parts = []
    for width, position in (
        (head_dim - 2 * space, index[:, None, None].expand(-1, *GRID)),
        (space, torch.arange(GRID[0])[None, :, None].expand(len(index), *GRID)),
        (space, torch.arange(GRID[1])[None, None].expand(len(index), *GRID)),
    ):
        frequency = torch.tensor([10000.0 ** (-2 * i / width) for i in range(width // 2)], dtype=torch.float64)
        parts.append(position.double()[..., None] * frequency)
    return torch.cat(parts, -1)


@pytest.mark.parametrize("head_dim", [32, 112])
@pytest.mark.parametrize("start", [0, 5, 5000])
def test_rope_is_its_definition_at_any_index(head_dim: int, start: int) -> None:
    index = torch.arange(start, start + 3)
    main, camera = ropes(index[None], *GRID, head_dim)
    expected = angles(index, head_dim)
    space, half_space = head_dim // 6, head_dim // 2 // 6
    time, half_time = head_dim // 2 - 2 * space, head_dim // 4 - 2 * half_space
    first = [*range(half_time), *range(time, time + half_space), *range(time + space, time + space + half_space)]
    for rope, angle in ((main, expected), (camera, expected[..., first])):
        angle = angle.flatten(0, 2)[None, :, None]
        torch.testing.assert_close(rope.cos, angle.cos().float(), atol=1e-6, rtol=0)
        torch.testing.assert_close(rope.sin, angle.sin().float(), atol=1e-6, rtol=0)


def test_the_released_head_splits_as_specified() -> None:
    main, camera = ropes(torch.zeros(1, 1, dtype=torch.long), *GRID, 112)
    assert main.cos.shape[-1] == 20 + 18 + 18
    assert camera.cos.shape[-1] == 10 + 9 + 9


def test_each_world_has_its_own_index() -> None:
    index = torch.tensor([[0, 1], [700, 701]])
    both = ropes(index, *GRID, 32)
    for i in range(2):
        for rope, alone in zip(both, ropes(index[i : i + 1], *GRID, 32), strict=True):
            assert torch.equal(rope.cos[i : i + 1], alone.cos)
            assert torch.equal(rope.sin[i : i + 1], alone.sin)


def test_rotation_is_complex_multiplication_and_undone_by_its_inverse() -> None:
    rope, _ = ropes(torch.arange(3)[None], *GRID, 32)
    x = draw(1, 3 * math.prod(GRID), 4, 32)
    turned = torch.view_as_complex(x.unflatten(-1, (-1, 2))) * torch.complex(rope.cos, rope.sin)
    torch.testing.assert_close(rotate(x, rope), torch.view_as_real(turned).flatten(-2))
    torch.testing.assert_close(rotate(rotate(x, rope), rope.inverse()), x, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("shift", [1, 40, 3000])
def test_products_of_rotated_vectors_depend_on_relative_time_alone(shift: int) -> None:
    q, k = draw(1, math.prod(GRID), 2, 32), draw(1, math.prod(GRID), 2, 32, seed=1)

    def product(q_index: int, k_index: int) -> Tensor:
        q_rope, k_rope = (ropes(torch.tensor([[i]]), *GRID, 32)[0] for i in (q_index, k_index))
        return torch.einsum("bnhd,bmhd->bhnm", rotate(q, q_rope), rotate(k, k_rope))

    torch.testing.assert_close(product(7 + shift, 3 + shift), product(7, 3), atol=2e-5, rtol=0)


def rays_of(camera: Tensor, head_dim: int = 32):
    index = torch.arange(camera.shape[1]).expand(len(camera), -1)
    return camera_rays(camera, ropes(index, *GRID, head_dim)[1], *GRID)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_the_output_transform_undoes_that_of_keys_and_values(seed: int) -> None:
    rays = rays_of(random_camera(2, 3, seed=seed, reach=1.0))
    x = draw(2, 3 * math.prod(GRID), 4, 32, seed=seed)
    there = project(x, rays.key_value, rays.rope)
    torch.testing.assert_close(project(there, rays.output, rays.rope.inverse()), x, atol=1e-4, rtol=1e-4)
    assert (there - x).abs().max() > 0.1


def test_queries_and_keys_meet_through_the_transform_from_ray_to_ray() -> None:
    camera = random_camera(1, 2)
    rays = rays_of(camera)
    tokens = 2 * math.prod(GRID)
    still = Rope(torch.ones(1, tokens, 1, 8), torch.zeros(1, tokens, 1, 8))
    q, k = draw(1, tokens, 1, 32), draw(1, tokens, 1, 32, seed=1)
    q_ray, k_ray = project(q, rays.query, still), project(k, rays.key_value, still)
    transform = ray_from_world(camera, *GRID).flatten(1, 3)[0]
    i, j = 4, 20
    relative = transform[i] @ torch.linalg.inv(transform[j])
    expected = (q[0, i, 0, :16].view(4, 4) @ relative * k[0, j, 0, :16].view(4, 4)).sum()
    torch.testing.assert_close(q_ray[0, i, 0, :16] @ k_ray[0, j, 0, :16], expected, atol=1e-4, rtol=1e-4)


def test_moving_the_whole_world_leaves_products_alone() -> None:
    camera, whole = random_camera(1, 3), random_poses(1, 1, seed=7)
    moved = camera.clone()
    moved[..., :16] = (whole @ camera[..., :16].unflatten(-1, (4, 4))).flatten(-2)
    q, k = draw(1, 3 * math.prod(GRID), 2, 32), draw(1, 3 * math.prod(GRID), 2, 32, seed=1)

    def products(rays) -> Tensor:
        q_ray, k_ray = project(q, rays.query, rays.rope), project(k, rays.key_value, rays.rope)
        return torch.einsum("bnhd,bmhd->bhnm", q_ray, k_ray)

    expected = products(rays_of(camera))
    torch.testing.assert_close(products(rays_of(moved)), expected, atol=3e-5 * expected.abs().max().item(), rtol=0)


def test_geometry_stays_float32_under_autocast_and_for_half_precision_features() -> None:
    camera = random_camera(1, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rays = rays_of(camera)
    assert torch.equal(rays.query, rays_of(camera).query)
    x = draw(1, 2 * math.prod(GRID), 2, 32).bfloat16()
    exact = project(x.float(), rays.query, rays.rope)
    assert project(x, rays.query, rays.rope).dtype == torch.bfloat16
    torch.testing.assert_close(project(x, rays.query, rays.rope), exact.bfloat16())
