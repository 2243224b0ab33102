"""Distillation: trajectories of a teacher, regression of their ends, and matching of the student's own rollouts."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.world_model.train.toy_world import SIDE, random_flow_model, toy
from world_model import whole_clip
from world_model.clips import noised
from world_model.errors import CheckpointError, InputError
from world_model.model import WorldModel
from world_model.text import WordEncoder
from world_model.train import self_forcing, trajectories
from world_model.train.loop import RunConfig
from world_model.train.ode import OdeRun, ode_loss
from world_model.train.ode import train as train_ode
from world_model.train.self_forcing import Pair, SelfForcingRun, exit_rollout, matching_loss, self_forcing_loss
from world_model.train.trajectories import TrajectoryRun, open_trajectories
from world_model.transformer import SanaWM


def random_tensors(config, frames: int) -> dict[str, Tensor]:
    torch.manual_seed(9)
    poses = torch.eye(4).repeat(2, 1 + config.tokenizer.temporal_stride * (frames - 1), 1, 1)
    poses[:, :, 2, 3] = 0.02 * torch.arange(poses.shape[1])
    ids, mask = WordEncoder(config.text).tokenize(["a red room", ""])
    return {
        "latents": torch.randn(2, 4, frames, *config.tokenizer.grid),
        "poses": poses,
        "intrinsics": torch.tensor([[24.0, 24, 16, 16]]).expand(2, 4),
        "ids": ids,
        "mask": mask,
        "update": torch.tensor(True),
    }


def trajectory_run(folder: Path, out: Path, **changes) -> TrajectoryRun:
    base = TrajectoryRun(
        teacher=str(folder / "model"),
        data=str(folder / "latents"),
        out=str(out),
        count=4,
        latents=4,
        batch=2,
        times=toy().steps,
        steps=3,
    )
    return dataclasses.replace(base, **changes)


def test_trajectories_are_the_samplers_and_resume(folder: Path, tmp_path: Path) -> None:
    trajectories.train(trajectory_run(folder, tmp_path / "whole"))
    trajectories.train(trajectory_run(folder, tmp_path / "halves", count=2))
    trajectories.train(trajectory_run(folder, tmp_path / "halves"))
    whole, halves = (open_trajectories(tmp_path / name, toy()) for name in ("whole", "halves"))
    assert whole.tensors["snapshots"].shape == (4, 4, 4, 4, 2, 2)  # (N, K, C, T, Y, X)
    assert all(torch.equal(x, halves.tensors[name]) for name, x in whole.tensors.items())
    snapshots = whole.tensors["snapshots"].float()
    assert torch.equal(snapshots[:, :1, :, 0].expand_as(snapshots[:, :, :, 0]), snapshots[:, :, :, 0])  # clean start
    assert snapshots[:, 0, :, 1:].std() == pytest.approx(1, abs=0.2)  # from noise


def test_trajectories_for_another_student_or_damaged_are_refused(folder: Path, tmp_path: Path) -> None:
    trajectories.train(trajectory_run(folder, tmp_path, count=2))
    with pytest.raises(CheckpointError, match=r"student's times, \(1000, 0\), got \(1000, 800, 500, 0\)"):
        open_trajectories(tmp_path, dataclasses.replace(toy(), steps=(1000, 0)))
    with pytest.raises(CheckpointError, match="expected parts with run"):
        trajectories.train(trajectory_run(folder, tmp_path, shift=5.0))
    part = tmp_path / "part-00000.safetensors"
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="expected sha256"):
        open_trajectories(tmp_path, toy())
    with pytest.raises(InputError, match="falling times from 1000 to 0"):
        trajectory_run(folder, tmp_path, times=(900, 0))


@pytest.mark.parametrize("mode", ["streaming", "chunk_causal"])
def test_regression_is_exact_for_exact_velocities(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """x - sigma v is the snapshot at 0 when v is exact; every chunk draws its own snapshot; the start stays."""
    config, asked = toy(), []
    tensors = random_tensors(config, 6)
    data = tensors.pop("latents")
    noise = torch.randn_like(data)
    times = [torch.full((2, 6), float(time)) for time in config.steps]
    for time in times:
        time[:, 0] = 0
    tensors["snapshots"] = torch.stack([noised(data, noise, time) for time in times], 1)

    def exact(_model, _config, _clips, *arguments):
        noisy, time = arguments[-2:] if mode == "streaming" else arguments[:2]
        asked.append(time)
        first = 6 - noisy.shape[2]
        assert torch.allclose(noisy, noised(data, noise, torch.cat([torch.zeros(2, first), time], 1))[:, :, first:])
        return (noise - data)[:, :, first:]

    module = "world_model.train.streaming" if mode == "streaming" else "world_model.whole_clip"
    monkeypatch.setattr(f"{module}.velocities", exact)
    model = random_flow_model(config, 1)
    for seed in range(5):
        loss, _ = ode_loss(model, tensors, torch.Generator().manual_seed(seed), mode)
        assert loss < 1e-10
    assert len(torch.cat(asked).unique(dim=0)) > 5


@pytest.mark.parametrize("block", [1, 3])
def test_a_rollout_has_gradients_at_its_exit_alone(block: int) -> None:
    config = toy(block)
    model = random_flow_model(config, 2)
    tensors = random_tensors(config, 1 + 2 * block)
    times: list[tuple[float, bool]] = []

    def record(_module, args, kwargs, output):
        times.append((float(args[1].max()), output[0].requires_grad))

    model.transformer.register_forward_hook(record, with_kwargs=True)
    made = exit_rollout(model, tensors, torch.Generator().manual_seed(1))
    assert made.shape == tensors["latents"].shape
    assert torch.equal(made[:, :, 0], tensors["latents"][:, :, 0])  # bit for bit
    exits = {time for time, learns in times if learns}
    assert len(exits) == 1  # the same step for all chunks
    assert sum(learns for _, learns in times) == 2  # once a chunk
    assert all(not learns for time, learns in times if time == 0)  # caches have none
    made[:, :, -block:].square().sum().backward()
    assert model.transformer.final_layer.linear.weight.grad.abs().sum() > 0


def test_rollouts_noise_afresh_and_repeat_from_one_generator() -> None:
    config = toy()
    model, tensors = random_flow_model(config, 2), random_tensors(config, 4)
    first, again, other = (exit_rollout(model, tensors, torch.Generator().manual_seed(s)) for s in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def run_of(folder: Path, out: Path, steps: int) -> SelfForcingRun:
    return SelfForcingRun(
        run=RunConfig(out=str(out), steps=steps, batch=2, lr=1e-2, warmup=0, log_every=1, betas=(0.0, 0.999)),
        student=str(folder / "model"),
        teacher=str(folder / "model"),
        data=str(folder / "latents"),
        validation=str(folder / "latents"),
        latents=4,
        update_every=2,
        validation_clips=2,
        validation_latents=5,
    )


def test_matching_vanishes_where_critic_and_teacher_agree_and_points_to_the_teacher(folder: Path, tmp_path) -> None:
    config, run = toy(), run_of(folder, tmp_path, 1)
    tensors = random_tensors(config, 4)
    teacher, critic = random_flow_model(config, 5), random_flow_model(config, 5)
    made = torch.randn_like(tensors["latents"]).requires_grad_()
    assert matching_loss(critic, teacher, tensors, made, torch.Generator().manual_seed(0), run) == 0

    for parameter in critic.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    matching_loss(critic, teacher, tensors, made, torch.Generator().manual_seed(0), run).backward()
    time, noisy, _ = self_forcing._noise_again(made.detach(), torch.Generator().manual_seed(0), run.shift)
    sigma = time[:, None, :, None, None] / 1000
    with torch.no_grad():
        fake, real = (
            noisy - sigma * whole_clip.velocities(m.transformer, config, m.clips(tensors), noisy, time, (4,))
            for m in (critic, teacher)
        )
        scale = (made - real)[:, :, 1:].abs().mean((1, 2, 3, 4), keepdim=True)
    expected = ((fake - real) / scale)[:, :, 1:] / made[:, :, 1:].numel()
    assert torch.allclose(made.grad[:, :, 1:], expected, atol=1e-7)
    assert not made.grad[:, :, 0].any()  # the start is given


def test_each_loss_reaches_its_own_network(folder: Path, tmp_path: Path) -> None:
    config, run = toy(), run_of(folder, tmp_path, 1)
    tensors = random_tensors(config, 4)
    teacher = random_flow_model(config, 6).requires_grad_(False)
    pair = Pair(random_flow_model(config, 7), random_flow_model(config, 8))
    for update in (False, True):
        pair.zero_grad()
        losing = {**tensors, "update": torch.tensor(update)}
        loss, _ = self_forcing_loss(pair, teacher, losing, torch.Generator().manual_seed(0), run)
        loss.backward()
        assert any(p.grad is not None and p.grad.any() for p in pair.critic.parameters())
        assert any(p.grad is not None and p.grad.any() for p in pair.student.parameters()) == update


def test_the_stages_run_end_to_end_and_end_in_a_world(folder: Path, tmp_path: Path) -> None:
    trajectories.train(trajectory_run(folder, tmp_path / "trajectories"))
    run = RunConfig(out=str(tmp_path / "ode"), steps=2, batch=2, log_every=1)
    ode = OdeRun(
        run=run,
        student=str(folder / "model"),
        data=str(tmp_path / "trajectories"),
        validation=str(folder / "latents"),
        validation_clips=2,
        validation_latents=5,
    )
    train_ode(ode)
    student = str(tmp_path / "ode" / "export")
    self_forcing.train(dataclasses.replace(run_of(folder, tmp_path / "own", 4), student=student))
    lines = [json.loads(line) for line in (tmp_path / "own" / "log.jsonl").read_text().splitlines()]
    assert sum("critic" in line for line in lines) == 4
    assert "validation_psnr_model_1s" in lines[-1]
    world = WorldModel.from_pretrained(tmp_path / "own" / "export")
    state, _ = world.reset([np.zeros((SIDE, SIDE, 3), np.uint8)], prompts=["red room"])
    _, frames = world.step(state, np.tile(np.eye(4), (1, 4, 1, 1)))
    assert frames.shape == (1, 4, SIDE, SIDE, 3)
    before = WorldModel.from_pretrained(Path(student)).transformer
    assert isinstance(before, SanaWM)
    moved = [(a - b).abs().max() for a, b in zip(before.parameters(), world.transformer.parameters(), strict=True)]
    assert max(moved) > 1e-4
