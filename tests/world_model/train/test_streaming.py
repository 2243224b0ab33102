"""What training computes is what streaming computes, and nothing of the future leaks into it."""

import dataclasses

import pytest
import torch
from torch import Tensor

from world_model.camera import cell_intrinsics
from world_model.clips import Clips, noised
from world_model.dynamics import _condition, new_worlds
from world_model.errors import InputError
from world_model.geometry import rigid
from world_model.live_camera import chunk_camera
from world_model.memory import write_memory
from world_model.presets import nano, tiny_sana
from world_model.train.initialise import initialise, whiten_plucker
from world_model.train.losses import late
from world_model.train.streaming import velocities, window_indices
from world_model.transformer import SanaWM

FRAMES = 7


def small(recent: int = 3):
    """Nano's semantics at toy size."""
    config = nano()
    transformer = dataclasses.replace(
        config.transformer, latent_channels=6, depth=2, heads=2, head_dim=16, main_scale_width=16, camera_scale_width=16
    )
    tokenizer = dataclasses.replace(config.tokenizer, latent_channels=6, height=48, width=64)
    return dataclasses.replace(config, transformer=transformer, tokenizer=tokenizer, recent=recent)


def random_model(config) -> SanaWM:
    model = SanaWM(config.transformer)
    initialise(model)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def random_clips(config, count: int = 2) -> Clips:
    spin = 0.1 * torch.randn(count, 4 * (FRAMES - 1) + 1, 3)
    skew = torch.linalg.cross(torch.eye(3).expand(*spin.shape, 3), spin[..., None, :].expand(*spin.shape, 3))
    poses = rigid(torch.linalg.matrix_exp(skew), 0.5 * torch.randn(*spin.shape, 1))
    poses[:, 0] = torch.eye(4)
    rows, columns = config.tokenizer.grid
    return Clips(
        latents=torch.randn(count, 6, FRAMES, rows, columns),
        poses=poses,
        intrinsics=torch.tensor([[40.0, 42.0, 31.0, 25.0]]).expand(count, 4),
        text=torch.randn(count, 5, config.text.channels),
        text_mask=torch.tensor([[True] * 5, [True] * 2 + [False] * 3])[:count],
        frame_index=torch.arange(FRAMES).expand(count, -1),
    )


@torch.no_grad()
def streamed(model: SanaWM, config, clips: Clips, noisy: Tensor, time: float) -> Tensor:
    """The same velocities from a world that is led along the clip, step by step."""
    lens = clips.intrinsics
    state = new_worlds(model, config, clips.latents[:, :, :1], lens, clips.text, clips.text_mask, [0, 1], "test")
    cells = cell_intrinsics(lens, (config.tokenizer.height, config.tokenizer.width), config.tokenizer.grid)
    out = []
    for t in range(1, FRAMES):
        path = clips.poses[:, 4 * t - 3 : 4 * t + 1]
        camera = chunk_camera(state.pose, path, cells, config.tokenizer.grid, 4, config.plucker_reference)
        given, cache = _condition(model, config, state, *camera)
        out.append(model(noisy[:, :, t - 1 : t], torch.full((2, 1), time), given, cache)[0])
        _, written = model(clips.latents[:, :, t : t + 1], torch.zeros(2, 1), given, cache)
        state = write_memory(state, written, config)
        state = dataclasses.replace(state, index=state.index + 1, pose=path[:, -1])
    return torch.cat(out, 2)


@pytest.mark.parametrize("recent", [1, 3, 8])
@pytest.mark.parametrize("reference", ["start", "previous"])
def test_training_computes_what_streaming_computes(recent: int, reference: str) -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(small(recent), plucker_reference=reference)
    model, clips = random_model(config), random_clips(config)
    noisy = torch.randn_like(clips.latents[:, :, 1:])
    batched = velocities(model, config, clips, clips.latents, noisy, torch.full((2, FRAMES - 1), 700.0))
    stepped = streamed(model, config, clips, noisy, 700.0)
    assert (batched - stepped).norm() <= 1e-5 * stepped.norm()


def test_gradients_flow_through_the_caches_and_never_from_the_future() -> None:
    torch.manual_seed(1)
    config = small()
    model, clips = random_model(config), random_clips(config)
    context = clips.latents.clone().requires_grad_()
    noisy = torch.randn_like(clips.latents[:, :, 1:])
    velocity = velocities(model, config, clips, context, noisy, torch.full((2, FRAMES - 1), 500.0))
    velocity[:, :, 3].square().sum().backward()  # chunk 4
    touched = context.grad.abs().amax((0, 1, 3, 4))
    assert (touched[:4] > 0).all()
    assert (touched[4:] == 0).all()


def test_a_config_of_longer_chunks_is_refused() -> None:
    config = tiny_sana()
    with pytest.raises(InputError, match="block=1"):
        velocities(SanaWM(config.transformer), config, None, None, None, None)  # type: ignore[arg-type]


def test_windows_hold_the_sink_and_the_recent_chunks() -> None:
    window, exists = window_indices(6, 2, torch.device("cpu"))
    seen = [sorted(w[e].tolist()) for w, e in zip(window, exists, strict=True)]
    assert seen == [[0], [0, 1], [0, 1, 2], [0, 2, 3], [0, 3, 4]]


def test_a_quarter_of_the_clips_go_on_late_after_their_start() -> None:
    index = torch.arange(6).expand(4000, -1)
    moved = late(index, 200, torch.Generator().manual_seed(0))
    jump = moved - index
    assert (jump[:, 0] == 0).all()  # the sink stays at the beginning
    assert (jump[:, 1:] == jump[:, 1:2]).all()  # and what follows it stays together
    gaps = jump[:, 1][jump[:, 1] > 0]
    assert len(gaps) / 4000 == pytest.approx(0.25, abs=0.03)
    assert gaps.max() == 200
    assert gaps.float().mean() == pytest.approx(100, abs=8)  # all alike
    assert torch.equal(late(index, 0, torch.Generator().manual_seed(0)), index)


def test_late_positions_are_those_of_a_world_of_that_age() -> None:
    """A clip that jumps trains what streaming computes after as many steps: positions reach rotation embeddings."""
    torch.manual_seed(3)
    config = small()
    model, clips = random_model(config), random_clips(config)
    noisy, time = torch.randn_like(clips.latents[:, :, 1:]), torch.full((2, FRAMES - 1), 700.0)
    jumped = dataclasses.replace(clips, frame_index=clips.frame_index + 500 * (clips.frame_index > 0))
    near, far = (velocities(model, config, c, c.latents, noisy, time) for c in (clips, jumped))
    assert not torch.allclose(near, far, atol=1e-4)
    shifted = dataclasses.replace(clips, frame_index=clips.frame_index + 500)
    same = velocities(model, config, shifted, clips.latents, noisy, time)
    assert (same - near).norm() < 0.2 * (far - near).norm()  # only the distance to the sink tells them apart


def test_noising_is_a_straight_path() -> None:
    clean, noise = torch.randn(1, 2, 3, 4, 4), torch.randn(1, 2, 3, 4, 4)
    for time, expected in ((0.0, clean), (1000.0, noise), (250.0, 0.75 * clean + 0.25 * noise)):
        assert torch.allclose(noised(clean, noise, torch.full((1, 3), time)), expected, atol=1e-6)


def test_at_the_start_the_camera_and_plucker_paths_contribute_nothing() -> None:
    torch.manual_seed(2)
    config = small()
    model, clips = SanaWM(config.transformer), random_clips(config)
    initialise(model)
    torch.nn.init.normal_(model.final_layer.linear.weight)
    noisy, time = torch.randn_like(clips.latents[:, :, 1:]), torch.full((2, FRAMES - 1), 500.0)
    still = dataclasses.replace(clips, poses=torch.eye(4).expand_as(clips.poses))
    moved, unmoved = (velocities(model, config, c, c.latents, noisy, time) for c in (clips, still))
    assert moved.abs().sum() > 0
    assert torch.equal(moved, unmoved)


def test_whitened_rays_carry_motion_at_unit_variance() -> None:
    torch.manual_seed(5)
    config = small()
    model = SanaWM(config.transformer)
    place, motion = torch.randn(4000, 1), 0.02 * torch.randn(4000, 1)
    axes = torch.linalg.qr(torch.randn(24, 2)).Q
    rays = 0.3 + place * axes[:, 0] + motion * axes[:, 1]
    whiten_plucker(model, rays)
    conv = model.plucker_embedder["proj"]
    embedded = rays @ conv.weight.flatten(1).mT + conv.bias
    assert embedded.mean(0).abs().max() < 0.05
    for signal in (place, motion):  # each reaches the embedding as strongly as the other
        slopes = torch.linalg.lstsq(signal / signal.std(), embedded).solution
        assert 0.5 < slopes.square().mean().sqrt() * 24**0.5 < 2
