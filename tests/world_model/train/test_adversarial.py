"""The judge of played clips, and what it does to the model that plays them."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.world_model.train.toy_world import random_flow_model, toy
from world_model.errors import CheckpointError, InputError
from world_model.model import WorldModel
from world_model.train import adversarial, judge, pairs, snapshot
from world_model.train.adversarial import AdversarialRun, Duel, duel_loss
from world_model.train.data.latents import open_latents
from world_model.train.flow_model import batch_of
from world_model.train.judge import Judge, JudgeConfig, JudgeRun, deceit, judge_loss
from world_model.train.loop import RunConfig
from world_model.train.pairs import PairsRun
from world_model.weights import read_safetensors

SMALL = JudgeConfig(width=8, depth=1)


def run_of(folder: Path, out: Path, **changes) -> AdversarialRun:
    base = AdversarialRun(
        run=RunConfig(out=str(out), steps=2, batch=2, init=str(folder / "model")),
        world=str(folder / "model" / "config.json"),
        tokenizer=str(folder / "tokenizer"),
        data=str(folder / "latents"),
        validation=str(folder / "latents"),
        latents=4,
        own_steps=1.0,
        rollout_from=-1,
        rollout_full=0,
        judge=SMALL,
        pull_full=1,
        validation_clips=2,
        validation_latents=4,
    )
    return dataclasses.replace(base, **changes)


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(folder: Path, duel: Duel, pull: float) -> dict[str, Tensor]:
    tensors = batch_of(open_latents(folder / "latents"), duel.player.text, 4, 4, draw(), 0.5).tensors
    return {**tensors, "pull": torch.tensor(pull)}


def duel_of(seed: int = 0) -> Duel:
    player = random_flow_model(toy(), seed)
    return Duel(player, Judge(player.channel_weight.flatten(), SMALL))


def test_a_judge_learns_to_tell_blur_from_truth() -> None:
    torch.manual_seed(0)
    network = Judge(torch.ones(4), JudgeConfig(width=16, depth=1, smoothness=0.1))
    learner = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(60):
        true = torch.randn(4, 4, 3, 4, 4)
        learner.zero_grad()
        judge_loss(network, true, 0.5 * true, draw(), JudgeConfig(smoothness=0.1)).backward()
        learner.step()
    unseen = torch.randn(16, 4, 3, 4, 4)
    assert (network(unseen).mean((1, 2, 3, 4)) > network(0.5 * unseen).mean((1, 2, 3, 4))).all()
    played = (0.5 * unseen).requires_grad_()
    deceit(network, unseen, played).backward()
    assert (-played.grad * unseen).sum() > 0  # a step against the gradient is a step away from blur


def test_a_channel_that_nobody_sees_is_not_judged() -> None:
    torch.manual_seed(0)
    network, clips = Judge(torch.tensor([1.0, 0.0]), SMALL), torch.randn(1, 2, 3, 4, 4)
    other = clips.clone()
    other[:, 1] += 1
    assert torch.equal(network(clips), network(other))


def test_each_side_learns_from_its_own_loss_alone(folder: Path) -> None:
    """The judge's loss leaves no gradient in the player, the pull none in the judge; without pull only the truth
    teaches."""
    duel = duel_of()

    def gradients(pull: float) -> dict[str, Tensor]:
        duel.zero_grad()
        loss, logs = duel_loss(duel, batch(folder, duel, pull), draw(), run_of(folder, Path("unused")))
        assert logs["judged"] > 0
        loss.backward()
        return {name: w.grad.clone() for name, w in duel.named_parameters() if w.grad is not None}

    without, pulled = gradients(0.0), gradients(1.0)
    judging = {name for name in without if name.startswith("judge.")}
    assert judging == {name for name, _ in duel.named_parameters() if name.startswith("judge.")}
    assert all(torch.equal(without[name], pulled[name]) for name in judging)
    assert any(not torch.allclose(without[name], pulled[name]) for name in without.keys() - judging)
    again = gradients(1.0)
    assert all(torch.equal(again[name], pulled[name]) for name in pulled)


def test_the_pull_has_the_length_it_is_given(folder: Path) -> None:
    """At the velocities, where both gradients are known: `pull` times that of the squared error on the same clips."""
    duel, norms = duel_of(), {}
    head = duel.player.transformer.final_layer.linear
    for pull in (0.0, 0.5, 1.0):
        duel.zero_grad()
        duel_loss(duel, batch(folder, duel, pull), draw(), run_of(folder, Path("unused")))[0].backward()
        norms[pull] = head.weight.grad.clone()
    assert torch.allclose(norms[1.0] - norms[0.0], 2 * (norms[0.5] - norms[0.0]), rtol=1e-3, atol=1e-6)
    assert not torch.allclose(norms[1.0], norms[0.0])


def test_a_batch_without_last_steps_teaches_by_squared_error(folder: Path) -> None:
    duel = duel_of()
    config = run_of(folder, Path("unused"), own_steps=1e-9)
    loss, logs = duel_loss(duel, batch(folder, duel, 1.0), draw(), config)
    assert logs["judged"] == logs["judge"] == 0
    loss.backward()
    assert all(weight.grad is None for weight in duel.judge.parameters())


def test_a_run_ends_in_a_model_that_plays(folder: Path, tmp_path: Path) -> None:
    adversarial.train(run_of(folder, tmp_path))
    model = WorldModel.from_pretrained(tmp_path / "export")
    assert model.config.name == "toy"
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert any("validation_psnr_model_1s" in line for line in lines)


def test_a_judge_is_trained_on_pairs_and_handed_on(folder: Path, tmp_path: Path) -> None:
    model, made = str(folder / "model"), str(tmp_path / "pairs")
    pairs.train(PairsRun(world=model, data=str(folder / "latents"), out=made, count=4, latents=4, batch=2))
    run = RunConfig(out=str(tmp_path / "judge"), steps=3, batch=2, ema=0.0)
    judge.train(JudgeRun(run=run, world=model, data=made, validation=made, judge=SMALL))
    weights = tmp_path / "judge" / "export" / "judge.safetensors"
    lines = [json.loads(line) for line in (tmp_path / "judge" / "log.jsonl").read_text().splitlines()]
    assert 0 <= lines[-1]["validation_cells_told_apart"] <= 1
    config = run_of(folder, tmp_path / "duel", judge_init=str(weights))
    adversarial.train(dataclasses.replace(config, run=dataclasses.replace(config.run, lr=1e-12)))
    ends = snapshot.read_weights(sorted((tmp_path / "duel" / "snapshots").iterdir())[-1])
    for name, weight in read_safetensors(weights).items():
        assert torch.allclose(ends[f"judge.{name}"], weight, atol=1e-6), name
    with pytest.raises(CheckpointError, match=r"wrong shapes: first\.weight"):
        adversarial.train(dataclasses.replace(config, judge=JudgeConfig(width=4, depth=1)))


def test_what_cannot_be_judged_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"own_steps > 0.*got 'streaming', 0\.0"):
        run_of(folder, Path("unused"), own_steps=0.0)
    with pytest.raises(InputError, match=r"pull_full >= 1, got 1\.0, 0\.3 and 0"):
        run_of(folder, Path("unused"), pull_full=0)
    with pytest.raises(InputError, match="width and depth >= 1"):
        JudgeConfig(width=0)
