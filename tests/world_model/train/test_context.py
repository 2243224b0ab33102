"""What training shows a chunk besides the truth: the model's own half-made chunks, and a past with gaps."""

import dataclasses
from pathlib import Path

import pytest
import torch

from tests.world_model.train.test_flow import flow_run
from tests.world_model.train.toy_world import random_flow_model, toy
from world_model.clips import cameras, noised
from world_model.errors import InputError
from world_model.train.data.latents import open_latents
from world_model.train.flow_model import batch_of
from world_model.train.half_made import half_made
from world_model.train.loop import generator
from world_model.train.losses import flow_loss
from world_model.train.rollout import rollout
from world_model.train.streaming import velocities


def test_a_half_made_chunk_leads_where_play_leads(folder: Path) -> None:
    config = dataclasses.replace(toy(), steps=(1000, 600, 0))
    model = random_flow_model(config, 3).eval()
    batch = batch_of(open_latents(folder / "latents"), model.text, 8, 4, generator(0, 0, "t"), 0.0)
    clips = model.clips(batch.tensors)
    data = clips.latents[:, :, 1:]
    drawn, times = torch.randn(data.shape), torch.full((8, 3), 300.0)
    noise, time = half_made(model, clips, clips.latents, data, drawn, times, 1.0, generator(0, 0, "own"))
    assert sorted(time[:, 0].tolist()) == [600.0] * 4 + [1000.0] * 4  # as many at every step
    assert (time == time[:, :1]).all()
    assert torch.allclose(noise[time[:, 0] == 1000], drawn[time[:, 0] == 1000], atol=1e-6)
    mending = (time[:, 0] == 600).nonzero()[:, 0]
    with torch.no_grad():
        made = noised(data, noise, time)
        velocity = velocities(model.transformer, config, clips, clips.latents, made, time)
        ends = made - 0.6 * velocity
    played = rollout(model, clips, drawn)  # its first chunk knows the start alone, as ours does
    assert torch.allclose(ends[mending, :, 0], played[mending, :, 1], rtol=1e-4, atol=1e-4)
    assert torch.allclose(noise - data, (made - data) / (time.view(8, 1, 3, 1, 1) / 1000), rtol=1e-4, atol=1e-4)


def test_only_a_share_of_the_clips_is_half_made(folder: Path, tmp_path: Path) -> None:
    model = random_flow_model(toy(), 3).eval()
    batch = batch_of(open_latents(folder / "latents"), model.text, 16, 4, generator(0, 0, "t"), 0.0)
    clips = model.clips(batch.tensors)
    data = clips.latents[:, :, 1:]
    drawn, times = torch.randn(data.shape), torch.full((16, 3), 300.0)
    noise, time = half_made(model, clips, clips.latents, data, drawn, times, 0.5, generator(0, 1, "own"))
    kept = time[:, 0] == 300
    assert 3 <= kept.sum() <= 13
    assert torch.equal(noise[kept], drawn[kept])
    plain = flow_run(folder, tmp_path, 1)
    losses = [flow_loss(model, batch.tensors, generator(0, 0, "l"), run)[0] for run in (plain, with_own(plain))]
    assert losses[0] != losses[1]


def with_own(run):
    return dataclasses.replace(run, own_steps=1.0)


def test_a_clip_with_gaps_is_its_path_without_what_lies_between(folder: Path) -> None:
    model, data = random_flow_model(toy(), 3).eval(), open_latents(folder / "latents")
    whole = batch_of(data, model.text, 6, 5, generator(0, 0, "t"), 0.5).tensors
    some = batch_of(data, model.text, 6, 3, generator(0, 0, "t"), 0.5, span=5).tensors
    kept = some["kept"]
    assert (kept[:, 0] == 0).all()
    assert (kept.diff(dim=1) > 0).all()
    assert torch.equal(kept[some["rollout"]], torch.arange(3).expand(int(some["rollout"].sum()), 3))
    assert (kept[~some["rollout"]].diff(dim=1) > 1).any()
    clips, path = model.clips(some), model.clips(whole)
    camera, plucker = cameras(clips, model.config)
    whole_camera, whole_plucker = cameras(path, model.config)
    for i, places in enumerate(kept):
        assert torch.equal(clips.latents[i], path.latents[i][:, places])
        assert torch.equal(camera[i], whole_camera[i, places])
        assert torch.equal(plucker[i], whole_plucker[i][:, places])
    assert torch.equal(clips.frame_index, kept)


def test_a_run_learns_from_gaps_and_half_made_chunks(folder: Path, tmp_path: Path) -> None:
    run = dataclasses.replace(flow_run(folder, tmp_path, 1), latents=3, span=5, own_steps=0.5)
    model = random_flow_model(toy(), 3)
    batch = batch_of(open_latents(folder / "latents"), model.text, 4, 3, generator(0, 0, "t"), 0.5, span=5)
    loss, _ = flow_loss(model, batch.tensors, generator(0, 0, "l"), run)
    loss.backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.transformer.parameters())


@pytest.mark.parametrize("changes", [{"span": 3}, {"span": 9, "mode": "bidirectional"}])
def test_a_span_that_holds_no_clip_is_refused(folder: Path, tmp_path: Path, changes: dict) -> None:
    with pytest.raises(InputError, match="span: expected 0, or at least latents=4 in mode 'streaming'"):
        dataclasses.replace(flow_run(folder, tmp_path, 1), **changes)
