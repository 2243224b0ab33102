"""Heads that look along their ray: where attention falls before any training."""

import pytest
import torch

from world_model.attention import SoftmaxAttention
from world_model.camera import camera_rows
from world_model.errors import InputError
from world_model.geometry import camera_rays, ropes
from world_model.presets import nano
from world_model.train.aim import AIMS, Aim, aim_heads
from world_model.train.initialise import initialise
from world_model.transformer import SanaWM

GRID, LENS, TURN = 8, (5.0, 5.0, 4.0, 4.0), 0.4  # radians a latent: some two cells


def attention_of(block: SoftmaxAttention, head: int) -> torch.Tensor:
    """Shares (S, T*S) that the tokens of the last of three latents give to all, of a camera that turns right."""
    pose = torch.eye(4).repeat(1, 3, 1, 1)
    for i, angle in enumerate((0.0, TURN, 2 * TURN)):
        s, c = torch.tensor(angle).sin(), torch.tensor(angle).cos()
        pose[0, i, :3, :3] = torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    camera = camera_rows(pose, torch.tensor([[LENS]]))
    rays = camera_rays(camera, ropes(torch.arange(3)[None], GRID, GRID, 32)[1], GRID, GRID)
    x = torch.randn(1, 3, GRID * GRID, 192, generator=torch.Generator().manual_seed(0))
    q, k = block.q_norm_cam(block.q_proj_cam(x)), block.k_norm_cam(block.k_proj_cam(x))
    q, k, _ = block.encode_rays(rays, *(block.split_heads(y) for y in (q, k, q)))
    score = q[0, -GRID * GRID :, head] @ k[0, :, head].mT * block.camera_scale
    return score.softmax(-1).detach()


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = SanaWM(nano().transformer)
    initialise(model)
    return model


def test_a_head_reads_what_lay_in_the_same_direction(model):
    attention = model.blocks[1].attn
    plain = attention_of(attention, 0)
    aim_heads(model)
    share = attention_of(attention, 0).unflatten(0, (GRID, GRID)).unflatten(-1, (3, GRID, GRID))[4, 2]
    before = share[1]  # of the middle row's third cell, in the latent before
    # two cells to the left now, where the camera looked on past the frame's middle a turn ago
    assert before.argmax() == 4 * GRID + 4
    rows, columns = torch.meshgrid(torch.arange(GRID), torch.arange(GRID), indexing="ij")
    near = ((rows - 4).abs() <= 1) & ((columns - 4).abs() <= 1)
    assert before[near].sum() / before.sum() > 0.8
    plain = plain.unflatten(0, (GRID, GRID)).unflatten(-1, (3, GRID, GRID))[4, 2, 1]
    assert plain[near].sum() / plain.sum() < 0.4


def test_heads_that_are_not_aimed_say_what_they_said(model):
    attention = model.blocks[3].attn
    plain = attention_of(attention, len(AIMS))
    aim_heads(model)
    torch.testing.assert_close(attention_of(attention, len(AIMS)), plain, rtol=0.1, atol=0.03)
    assert not attention.out_proj_cam.weight[:, : 32 * len(AIMS)].any()


def test_an_aim_for_every_head_and_no_more(model):
    with pytest.raises(InputError, match="aims: expected at most 6"):
        aim_heads(model, (Aim(),) * 7)
