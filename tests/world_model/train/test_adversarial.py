"""The judge of played clips, and what it does to the model that plays them."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from tests.world_model.train.toy_world import random_flow_model, toy
from world_model.errors import CheckpointError, InputError
from world_model.model import WorldModel
from world_model.train import adversarial, distributed, judge, pairs, snapshot
from world_model.train.adversarial import AdversarialRun, Duel, duel_loss
from world_model.train.data.latents import open_latents
from world_model.train.flow_model import batch_of
from world_model.train.judge import Judge, JudgeConfig, JudgeRun, judge_clips, load_judge
from world_model.train.loop import RunConfig
from world_model.train.losses import flow_loss, streamed
from world_model.train.pairs import PairsRun

SMALL = JudgeConfig(width=8, depth=1)


def run_of(folder: Path, out: Path, **changes) -> AdversarialRun:
    """changes: of the run too."""
    of_run = {name: changes.pop(name) for name in tuple(changes) if name in RunConfig.__dataclass_fields__}
    run = RunConfig(**{"out": str(out), "steps": 2, "batch": 4, "init": str(folder / "model"), **of_run})
    base = AdversarialRun(
        run=run,
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
    config = JudgeConfig(width=16, depth=1, smoothness=0.1)
    network = Judge(torch.ones(4), config)
    learner = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(60):
        true = torch.randn(4, 4, 3, 4, 4)
        learner.zero_grad()
        judge_clips(network, true, 0.5 * true, draw(), config).loss.backward()
        learner.step()
    unseen = torch.randn(16, 4, 3, 4, 4)
    verdict = judge_clips(network, unseen, 0.5 * unseen, draw(), config)
    assert verdict.fooled < 0.1  # of the cells
    assert (-verdict.towards * unseen).sum() > 0  # a step against it is a step away from blur


def test_a_channel_that_nobody_sees_is_not_judged() -> None:
    torch.manual_seed(0)
    network, clips = Judge(torch.tensor([1.0, 0.0]), SMALL), torch.randn(1, 2, 3, 4, 4)
    other = clips.clone()
    other[:, 1] += 1
    assert torch.equal(network(clips), network(other))
    assert judge_clips(network, clips, other, draw(), SMALL).loss.isfinite()


def gradients(duel: Duel, loss: Tensor) -> dict[str, Tensor]:
    duel.zero_grad()
    loss.backward()
    return {name: w.grad.clone() for name, w in duel.named_parameters() if w.grad is not None}


def test_without_pull_the_model_learns_from_the_truth_alone(folder: Path) -> None:
    """So the judge's own loss leaves nothing in the model."""
    duel, config = duel_of(), run_of(folder, Path("unused"))
    loss, logs = duel_loss(duel, batch(folder, duel, 0.0), draw(), config)
    assert logs["judged"] > 0
    both = gradients(duel, loss)
    alone = gradients(duel, flow_loss(duel.player, batch(folder, duel, 0.0), draw(), config)[0])
    for name, gradient in alone.items():
        assert torch.allclose(both[name], gradient, rtol=1e-4, atol=1e-7), name


def test_the_pull_leads_towards_the_judge_at_the_length_it_is_given(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    duel, config, seen = duel_of(), run_of(folder, Path("unused")), []

    def watched(*arguments):
        seen.append(streamed(*arguments))
        return seen[-1]

    monkeypatch.setattr(adversarial, "streamed", watched)
    all_gradients = []
    for pull in (0.0, 0.3):
        loss, logs = duel_loss(duel, batch(folder, duel, pull), draw(), config)
        seen[-1].velocity.retain_grad()
        all_gradients.append(gradients(duel, loss))
    last = (seen[0].time == 500).all(1)  # of the steps 1000, 800, 500, 0
    assert 0 < last.sum() < len(last)
    assert logs["judged"] == last.float().mean()
    without, pulled = (made.velocity.grad for made in seen)
    push = (pulled - without)[last]
    assert push.norm() == pytest.approx(float(0.3 * without[last].norm()), rel=1e-4)
    assert torch.allclose(pulled[~last], without[~last], atol=1e-7)
    made, true = seen[0], seen[0].clips.latents

    def fooled(velocity: Tensor) -> float:
        played = torch.cat([true[:, :, :1], dataclasses.replace(made, velocity=velocity).data()], 2)
        return float(softplus(duel.judge(true[last]) - duel.judge(played[last])).mean())

    nearer = made.velocity.detach().clone()
    nearer[last] -= 0.1 * push / push.norm()
    assert fooled(nearer) < fooled(made.velocity.detach())
    for name in all_gradients[0]:
        if name.startswith("judge."):
            assert torch.equal(all_gradients[0][name], all_gradients[1][name])


def test_a_batch_without_last_steps_teaches_by_squared_error(folder: Path) -> None:
    """And has the same gradients to average with other workers."""
    duel = duel_of()
    config = run_of(folder, Path("unused"), own_steps=1e-9)
    loss, logs = duel_loss(duel, batch(folder, duel, 1.0), draw(), config)
    assert logs["judged"] == logs["fooled"] == 0
    found = gradients(duel, loss)
    assert (
        found.keys()
        == gradients(duel, duel_loss(duel, batch(folder, duel, 1.0), draw(), run_of(folder, Path()))[0]).keys()
    )
    assert all((found[name] == 0).all() for name in found if name.startswith("judge."))


def test_each_side_is_clipped_by_itself() -> None:
    sides = torch.nn.ModuleDict(
        {"judge": torch.nn.Linear(2, 1, bias=False), "player": torch.nn.Linear(2, 1, bias=False)}
    )
    sides["judge"].weight.grad, sides["player"].weight.grad = torch.tensor([[30.0, 40]]), torch.tensor([[0.3, 0.4]])
    norm = distributed.clip_gradients(sides, 1.0, ("judge.",))
    assert norm == pytest.approx((50**2 + 0.5**2) ** 0.5)
    assert sides["judge"].weight.grad.norm() == pytest.approx(1, abs=1e-4)
    assert torch.equal(sides["player"].weight.grad, torch.tensor([[0.3, 0.4]]))


def test_a_run_ends_in_a_model_that_plays_and_a_judge_to_go_on_with(folder: Path, tmp_path: Path) -> None:
    config = run_of(folder, tmp_path / "whole", steps=4, log_every=1)
    adversarial.train(config)
    lines = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert sum(line.get("judged", 0) for line in lines) > 0
    assert "validation_psnr_model_1s" in lines[-1]
    assert WorldModel.from_pretrained(tmp_path / "whole" / "export").config.name == "toy"

    for steps in (2, 4):
        adversarial.train(run_of(folder, tmp_path / "halves", steps=steps))
    whole, halves = (snapshot.read_weights(tmp_path / n / "snapshots" / "step_00000004") for n in ("whole", "halves"))
    assert all(torch.equal(halves[name], weight) for name, weight in whole.items())

    first = Judge(torch.ones(4), SMALL)
    load_judge(first, tmp_path / "whole" / "export")
    following = run_of(folder, tmp_path / "next", judge_init=str(tmp_path / "whole" / "export"))
    adversarial.train(dataclasses.replace(following, run=dataclasses.replace(following.run, steps=1, lr=1e-12)))
    ends = snapshot.read_weights(tmp_path / "next" / "snapshots" / "step_00000001")
    for name, weight in first.state_dict().items():
        assert torch.allclose(ends[f"judge.{name}"], weight, atol=1e-6), name
    with pytest.raises(CheckpointError, match=r"wrong shapes: first\.weight"):
        adversarial.train(dataclasses.replace(following, judge=JudgeConfig(width=4, depth=1)))


def test_a_judge_learns_from_pairs(folder: Path, tmp_path: Path) -> None:
    model, made = str(folder / "model"), str(tmp_path / "pairs")
    pairs.train(PairsRun(world=model, data=str(folder / "latents"), out=made, count=4, latents=4, batch=2))
    run = RunConfig(out=str(tmp_path / "judge"), steps=40, batch=4, ema=0.0, lr=3e-3, warmup=1)
    judge.train(JudgeRun(run=run, world=model, data=made, validation=made, judge=JudgeConfig(width=16, depth=1)))
    lines = [json.loads(line) for line in (tmp_path / "judge" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["validation_cells_told_apart"] > 0.8  # untrained weights play badly
    load_judge(Judge(torch.ones(4), JudgeConfig(width=16, depth=1)), tmp_path / "judge" / "export")


def test_what_cannot_be_judged_is_refused(folder: Path) -> None:
    for share in (0.0, -1.0, 2.0):
        with pytest.raises(InputError, match=rf"own_steps in \(0, 1\].*got 'streaming', {share}"):
            run_of(folder, Path("unused"), own_steps=share)
    with pytest.raises(InputError, match=r"run\.init, the model to sharpen"):
        run_of(folder, Path("unused"), init="")
    with pytest.raises(InputError, match=r"pull_full >= 1, got 1\.0, 0\.3 and 0"):
        run_of(folder, Path("unused"), pull_full=0)
    with pytest.raises(InputError, match="width and depth >= 1"):
        JudgeConfig(width=0)
