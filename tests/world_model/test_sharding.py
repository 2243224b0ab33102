"""A clip split over workers by time: the same velocities, loss and gradients as one worker's, padding included."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tests.world_model import workers
from tests.world_model.test_whole_clip import random_clips, random_model, small_nano
from world_model import whole_clip
from world_model.errors import InputError
from world_model.presets import tiny_sana
from world_model.sharding import ALL_FRAMES, AllFrames, SomeFrames

CASES = {  # name: (preset, latents, one chunk)
    "bidirectional 5": ("tiny-sana", 5, True),  # shards of 3, 2 and of 2, 2, 1
    "bidirectional 4": ("tiny-sana", 4, True),  # three workers: the last has padding alone, halos reach over two shards
    "bidirectional 9": ("tiny-sana", 9, True),
    "chunk-causal 7": ("tiny-sana", 7, False),
    "chunk-causal 10": ("tiny-sana", 10, False),  # chunks of 4, 3, 3 lie across shards of 5, 5 and of 4, 4, 2
    "one-latent chunks": ("nano", 5, False),
}
CONFIGS = {"tiny-sana": tiny_sana(), "nano": small_nano()}
PROGRAM = """
import os, sys
from pathlib import Path
from tests.world_model import test_sharding
from world_model.train import distributed
distributed.join(os.environ, "cpu")
test_sharding.work(Path(sys.argv[1]))
distributed.leave()
"""


def case(name: str, held_by) -> dict[str, torch.Tensor]:
    """Velocity, loss and gradients of one case; held_by(frames) -> the frames that this worker holds."""
    preset, frames, one_chunk = CASES[name]
    config = CONFIGS[preset]
    model, clips, held = random_model(config), random_clips(config, frames), held_by(frames)
    chunks = (frames,) if one_chunk else whole_clip.training_chunks(frames, config)
    time = torch.linspace(100, 900, frames).expand(2, -1)
    weight = (torch.arange(frames) > 0).float().expand(2, -1)
    velocity = whole_clip.velocities(model, config, clips, clips.latents, time, chunks, held)
    error = (velocity - held.cut(clips.latents.flip(2), 2)).square().mean((1, 3, 4))
    loss = held.mean(error, held.cut(weight, 1))
    loss.backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return {"velocity": velocity.detach(), "loss": loss.detach(), **gradients}


def work(folder: Path) -> None:
    """What each of three workers does: every case on the first two of them, then on all."""
    rank, pair = dist.get_rank(), dist.new_group([0, 1])
    for count in (2, 3):
        if rank >= count:
            continue
        group = pair if count == 2 else None
        for name in CASES:
            found = case(name, lambda frames: SomeFrames(frames, rank, count, group))  # noqa: B023
            torch.save(found, folder / f"{name}.{count}.{rank}.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    workers.run(3, PROGRAM, folder)
    return folder


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("name", CASES)
def test_shards_together_are_the_whole(folder: Path, name: str, count: int) -> None:
    torch.set_num_threads(1)
    whole = case(name, lambda frames: ALL_FRAMES)
    shards = [torch.load(folder / f"{name}.{count}.{rank}.pt") for rank in range(count)]
    frames = whole["velocity"].shape[2]
    velocity = torch.cat([shard.pop("velocity") for shard in shards], 2)[:, :, :frames]
    torch.testing.assert_close(velocity, whole.pop("velocity"), rtol=1e-5, atol=1e-5)
    expected = whole.pop("loss")
    for shard in shards:  # every worker knows the loss of all
        torch.testing.assert_close(shard.pop("loss"), expected, rtol=1e-5, atol=0)
    assert all(shard.keys() == whole.keys() for shard in shards)
    for key, gradient in whole.items():
        mean = sum(shard[key] for shard in shards) / count
        assert (mean - gradient).norm() <= 3e-4 * gradient.norm() + 1e-7, key


def test_shards_are_equal_and_end_with_repeats_of_the_last_frame() -> None:
    clip = torch.arange(5.0)[None, :]
    shards = [SomeFrames(5, rank, 3) for rank in range(3)]
    assert [shard.cut(clip, 1).tolist() for shard in shards] == [[[0, 1]], [[2, 3]], [[4, 4]]]
    assert [shard.real("cpu").tolist() for shard in shards] == [[True, True], [True, True], [True, False]]
    assert AllFrames().cut(clip, 1) is clip
    with pytest.raises(InputError, match="expected 5 frames, got 4"):
        shards[0].cut(clip[:, :4], 1)
    with pytest.raises(InputError, match="rank: expected one of 3, got 3"):
        SomeFrames(5, 3, 3)
