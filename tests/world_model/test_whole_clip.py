"""Whole clips in one pass: nothing leaks from later chunks, streaming agrees, the sampler follows the flow."""

import dataclasses

import pytest
import torch
from torch import Tensor

from world_model import whole_clip
from world_model.clips import Clips, cameras, noised, wordless
from world_model.dynamics import _condition, new_worlds
from world_model.errors import InputError
from world_model.geometry import rigid
from world_model.memory import write_memory
from world_model.presets import nano, tiny_sana
from world_model.train.initialise import initialise
from world_model.transformer import SanaWM


def small_nano():
    """Nano's semantics at toy size."""
    config = nano()
    transformer = dataclasses.replace(
        config.transformer, latent_channels=6, depth=2, heads=2, head_dim=16, main_scale_width=16, camera_scale_width=16
    )
    tokenizer = dataclasses.replace(config.tokenizer, latent_channels=6, height=48, width=64)
    return dataclasses.replace(config, transformer=transformer, tokenizer=tokenizer)


CONFIGS = {"nano": small_nano(), "tiny-sana": dataclasses.replace(tiny_sana(), recent=9)}


@pytest.fixture(params=CONFIGS)
def config(request):
    return CONFIGS[request.param]


def random_model(config) -> SanaWM:
    torch.manual_seed(0)
    model = SanaWM(config.transformer)
    initialise(model)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def random_clips(config, frames: int, count: int = 2) -> Clips:
    torch.manual_seed(1)
    stride = config.tokenizer.temporal_stride
    spin = 0.05 * torch.randn(count, 1 + stride * (frames - 1), 3)
    skew = torch.linalg.cross(torch.eye(3).expand(*spin.shape, 3), spin[..., None, :].expand(*spin.shape, 3))
    poses = rigid(torch.linalg.matrix_exp(skew), 0.3 * torch.randn(*spin.shape, 1))
    poses[:, 0] = torch.eye(4)
    words = config.text.max_words + 1
    return Clips(
        latents=torch.randn(count, config.transformer.latent_channels, frames, *config.tokenizer.grid),
        poses=poses,
        intrinsics=torch.tensor([[40.0, 42.0, 31.0, 25.0]]).expand(count, 4),
        text=torch.randn(count, words, config.text.channels),
        text_mask=torch.arange(words).expand(count, -1) < 3,
        frame_index=torch.arange(frames).expand(count, -1),
    )


@torch.no_grad()
def test_later_chunks_never_change_earlier_ones(config) -> None:
    model, frames = random_model(config), config.sink + 2 * config.block
    clips, chunks = random_clips(config, frames), whole_clip.training_chunks(frames, config)
    time = torch.full((2, frames), 600.0)
    noisy = clips.latents.clone()
    before = whole_clip.velocities(model, config, clips, noisy, time, chunks)
    noisy[:, :, -config.block :] += 1
    after = whole_clip.velocities(model, config, clips, noisy, time, chunks)
    assert torch.equal(before[:, :, : -config.block], after[:, :, : -config.block])
    assert not torch.allclose(before[:, :, -config.block :], after[:, :, -config.block :])
    assert not torch.allclose(  # in one chunk everything sees everything
        whole_clip.velocities(model, config, clips, noisy, time, (frames,))[:, :, 0], before[:, :, 0]
    )


@torch.no_grad()
def test_streaming_over_clean_latents_equals_one_chunk_causal_pass(config) -> None:
    model, frames = random_model(config), config.sink + 2 * config.block
    clips, chunks = random_clips(config, frames), whole_clip.training_chunks(frames, config)
    time = torch.zeros(2, frames)
    time[:, -config.block :] = 700
    noisy = noised(clips.latents, torch.randn_like(clips.latents), time)
    whole = whole_clip.velocities(model, config, clips, noisy, time, chunks)

    start = clips.latents[:, :, :1]
    state = new_worlds(model, config, start, clips.intrinsics, clips.text, clips.text_mask, [0, 1], "test")
    camera, plucker = cameras(clips, config)
    done = int(state.index[0])
    for end in torch.tensor(chunks).cumsum(0).tolist():
        if end <= done:
            continue
        span = slice(done, end)
        given, cache = _condition(model, config, state, camera[:, span], plucker[:, :, span])
        velocity, written = model(noisy[:, :, span], time[:, span], given, cache)
        state = dataclasses.replace(write_memory(state, written, config), index=state.index + end - done)
        done = end
    error = (velocity - whole[:, :, span]).norm() / whole[:, :, span].norm()
    assert error <= 1e-5


class Straight:
    """Knows the data and the noise, and so the exact velocity; remembers what it was asked."""

    def __init__(self, data: Tensor, noise: Tensor) -> None:
        self.data, self.noise, self.times = data, noise, []

    def condition(self, text: Tensor, text_mask: Tensor, *_, **__) -> Tensor:
        return text_mask

    def __call__(self, noisy: Tensor, time: Tensor, text_mask: Tensor):
        self.times.append(time[0].tolist())
        told = text_mask[:, 1].float().view(-1, 1, 1, 1, 1)  # without a prompt: half the velocity
        return (self.noise - self.data) * (0.5 + 0.5 * told), None


def test_the_sampler_follows_the_flow_and_leaves_the_start_alone() -> None:
    config = CONFIGS["nano"]
    clips = random_clips(config, 4)
    noise = torch.randn_like(clips.latents)
    exact = Straight(clips.latents, noise)
    times = whole_clip.euler_times(5, 3.0, through=(908, 250))
    path = list(whole_clip.denoise(exact, config, clips, noise, times))  # type: ignore[arg-type]
    assert [time for time, _ in path] == list(times)
    assert {908.0, 250.0} <= set(times)
    for time, latents in path:
        moving = torch.full((2, 4), time)
        moving[:, 0] = 0
        assert torch.allclose(latents, noised(clips.latents, noise, moving), atol=1e-5)
    assert all(asked[0] == 0 and len(set(asked[1:])) == 1 for asked in exact.times)


def test_guidance_pushes_away_from_the_unprompted_velocity() -> None:
    config = CONFIGS["nano"]
    clips = random_clips(config, 3)
    noise = torch.randn_like(clips.latents)
    exact, time = Straight(clips.latents, noise), torch.full((2, 3), 500.0)
    args = (exact, config, clips, noise, time, (3,))
    plain = whole_clip.guided_velocities(*args, 1.0)  # type: ignore[arg-type]
    pushed = whole_clip.guided_velocities(*args, 4.0)  # type: ignore[arg-type]
    assert torch.allclose(pushed, 2.5 * plain, atol=1e-5)  # 0.5 + 4 * (1 - 0.5)
    assert wordless(clips).text_mask.sum(1).tolist() == [1, 1]


def test_schedules_and_grids_at_their_edges() -> None:
    assert whole_clip.euler_times(1, 9.8) == (1000.0, 0.0)
    times = whole_clip.euler_times(60, 9.8)
    assert len(times) == 61
    assert list(times) == sorted(set(times), reverse=True)
    with pytest.raises(InputError, match="steps >= 1"):
        whole_clip.euler_times(0, 1.0)
    assert whole_clip.training_chunks(10, tiny_sana()) == (4, 3, 3)
    assert whole_clip.training_chunks(12, tiny_sana()) == (4, 3, 5)  # the tail joins
    with pytest.raises(InputError, match="at least 7 latents for two chunks, got 6"):
        whole_clip.training_chunks(6, tiny_sana())
