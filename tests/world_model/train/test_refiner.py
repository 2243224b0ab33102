"""The second stage's training: endpoint algebra, damaged context, the curriculum, and a run from pairs to a world."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.world_model.train.toy_world import SIDE, random_flow_model, toy
from world_model.config import WorldConfig
from world_model.dynamics import advance, new_worlds
from world_model.errors import CheckpointError, InputError
from world_model.model import WorldModel
from world_model.refiner import Refiner, endpoint, load_refiner, on_path, refine, refiner_config
from world_model.sampler import latent_noise
from world_model.train import pairs, refiner, streaming
from world_model.train.corruption import Corruption, corrupt
from world_model.train.loop import RunConfig
from world_model.train.pairs import PairsRun, open_pairs
from world_model.train.refiner import DAMAGED, OWN, TRUE, RefinerRun, context_shares, noise_levels, refiner_loss
from world_model.train.rollout import rollout

FRAMES = 6


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def config_of_refiner() -> WorldConfig:
    return refiner_config(toy(), (600, 300, 0))


def tensors_of_pairs(config: WorldConfig, kinds: list[int]) -> dict[str, Tensor]:
    torch.manual_seed(3)
    count = len(kinds)
    poses = torch.eye(4).repeat(count, 1 + 4 * (FRAMES - 1), 1, 1)
    poses[:, :, 2, 3] = 0.02 * torch.arange(poses.shape[1])
    truth = torch.randn(count, 4, FRAMES, *config.tokenizer.grid)
    made = truth + 0.5 * torch.randn_like(truth)
    made[:, :, 0] = truth[:, :, 0]
    ids = torch.zeros(count, 5, dtype=torch.int64)
    return {
        "latents": truth,
        "made": made,
        "poses": poses,
        "intrinsics": torch.tensor([[24.0, 24, 16, 16]]).expand(count, 4),
        "ids": ids,
        "mask": ids == 0,
        "context": torch.tensor(kinds),
    }


def settings(folder: Path, out: Path, **changes) -> RefinerRun:
    run = RunConfig(out=str(out), steps=3, batch=2, lr=1e-2, warmup=0, log_every=1)
    base = RefinerRun(
        run=run,
        world=str(folder / "model"),
        data=str(out / "pairs"),
        validation=str(out / "pairs"),
        steps=(600, 300, 0),
        latents=5,
        curriculum=(0, 1, 2),
        validation_clips=2,
    )
    return dataclasses.replace(base, **changes)


def test_the_path_runs_straight_from_the_truth_to_the_endpoint() -> None:
    start = 0.6
    truth, made, noise = (torch.randn(2, 3, 4, 5, 5, generator=draw(i)) for i in range(3))
    end = endpoint(made, noise, start)
    assert torch.allclose(end, 0.4 * made + 0.6 * noise)
    assert torch.allclose(on_path(truth, end, torch.full((2, 4), start), start), end, atol=1e-6)
    assert torch.equal(on_path(truth, end, torch.zeros(2, 4), start), truth)
    levels = torch.linspace(0.1, 0.5, 8).view(2, 4)
    step = 0.01
    slope = (on_path(truth, end, levels + step, start) - on_path(truth, end, levels, start)) / step
    assert torch.allclose(slope, (end - truth) / start, atol=1e-4)


def test_the_loss_vanishes_for_the_exact_velocity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = config_of_refiner()
    model, tensors = random_flow_model(config, 1), tensors_of_pairs(config, [TRUE, TRUE])
    asked: list[Tensor] = []

    def exact(_model, _config, clips, context, state, time):
        asked.append(time)
        assert torch.equal(context, clips.latents)
        # where the line from the truth through the state ends at the start's noise
        return (state - clips.latents[:, :, 1:]) / (time[:, None, :, None, None] / 1000)

    monkeypatch.setattr(streaming, "velocities", exact)
    for seed in range(4):
        loss, logs = refiner_loss(model, tensors, draw(seed), settings(tmp_path, tmp_path))
        assert loss < 1e-6
        assert logs["loss_at_endpoint"] < 1e-6
    times = torch.cat(asked)
    assert times.min() > 0
    assert times.max() == 600


def test_context_is_true_damaged_or_the_refiners_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = config_of_refiner()
    model, tensors = random_flow_model(config, 1), tensors_of_pairs(config, [TRUE, DAMAGED, OWN])
    given: list[Tensor] = []
    monkeypatch.setattr(streaming, "velocities", lambda *a: (given.append(a[3]), a[4])[1])
    refiner_loss(model, tensors, draw(), settings(tmp_path, tmp_path))
    context, truth = given[0], tensors["latents"]
    assert torch.equal(context[:, :, 0], truth[:, :, 0])  # the start is given
    assert torch.equal(context[0], truth[0])
    damage = (context[1] - truth[1])[:, 1:].square().mean().sqrt()
    assert 0.02 < damage < 1
    assert not torch.isclose(context[2][:, 1:], truth[2][:, 1:]).any()


def test_gradients_reach_the_weights_and_the_start_is_nobodys_endpoint(tmp_path: Path) -> None:
    config = config_of_refiner()
    model, tensors = random_flow_model(config, 1), tensors_of_pairs(config, [OWN, TRUE])
    tensors["made"].requires_grad_()
    loss, logs = refiner_loss(model, tensors, draw(), settings(tmp_path, tmp_path))
    loss.backward()
    assert torch.isfinite(loss)
    assert logs["loss_own_context"] > 0
    assert model.transformer.final_layer.linear.weight.grad.abs().sum() > 0
    assert not tensors["made"].grad[:, :, 0].any()


@pytest.mark.parametrize(("name", "share"), [("noise", 0.1), ("exposure", 0.15), ("blur", 0.2), ("dropout", 0.1)])
def test_each_kind_of_damage_stays_within_its_bound(name: str, share: float) -> None:
    torch.manual_seed(0)
    clean = torch.randn(64, 8, 5, 4, 4)
    nothing = dict.fromkeys(("noise", "exposure", "blur", "dropout"), 0.0)
    damaged = corrupt(clean, Corruption(**(nothing | {name: share})), draw())
    assert torch.equal(damaged[:, :, 0], clean[:, :, 0])
    assert not torch.equal(damaged, clean)
    inside, was = damaged[:, :, 1:], clean[:, :, 1:]
    if name == "exposure":
        ratio = inside / was
        assert ratio.min() >= 1 - share - 1e-5
        assert ratio.max() <= 1 + share + 1e-5
        assert (ratio.amax((2, 3, 4)) - ratio.amin((2, 3, 4))).max() < 1e-4  # one for a channel of a clip
    elif name == "dropout":
        missing = (inside == 0).flatten(2).all(2)  # (B, C): channels of whole clips
        assert 0.05 < missing.float().mean() < 0.15
        assert torch.equal(inside[~missing], was[~missing])
    elif name == "noise":
        residual = (inside - was).flatten(1).std(1)
        assert residual.max() <= share * 2**0.5 * 1.1
        assert residual.min() < 0.02
    else:
        neighbours = (clean[:, :, [0, 1, 2, 3]] + clean[:, :, [2, 3, 4, 4]]) / 2
        share_of_clip = ((inside - was) / (neighbours - was)).flatten(1).median(1).values
        assert share_of_clip.min() >= 0
        assert share_of_clip.max() <= share + 1e-4


def test_strength_scales_the_damage() -> None:
    clean = torch.randn(4, 8, 5, 4, 4, generator=draw(1))
    none, some, all_of_it = (corrupt(clean, Corruption(strength=s), draw()) for s in (0.0, 0.5, 1.0))
    assert torch.equal(none, clean)
    assert (some - clean).norm() < (all_of_it - clean).norm()
    with pytest.raises(InputError, match="expected shares in"):
        Corruption(noise=1.5)


def test_noise_levels_lie_below_the_start_and_often_at_it(tmp_path: Path) -> None:
    levels = noise_levels((500, 40), 0.6, draw(), settings(tmp_path, tmp_path))
    assert levels.min() > 0
    assert levels.max() == pytest.approx(0.6)
    assert (levels == levels.max()).float().mean() == pytest.approx(0.25, abs=0.02)
    median = float((levels[levels < levels.max()] / 0.6).median())
    assert median == pytest.approx(2.6 / 3.6, abs=0.04)  # of a shifted logit-normal: shift / (1 + shift)


def test_the_curriculum_moves_from_truth_to_the_refiners_own() -> None:
    steps = (500, 2500, 5000)
    assert context_shares(steps, 0) == context_shares(steps, 500) == (1, 0, 0)
    assert context_shares(steps, 1500) == pytest.approx((0.65, 0.35, 0))
    assert context_shares(steps, 2500) == pytest.approx((0.3, 0.7, 0))
    assert context_shares(steps, 9999) == pytest.approx((0.2, 0.3, 0.5))


def test_batched_training_is_the_refinement_that_is_played() -> None:
    """Stream against batch: velocities on clean context are those of the world that `refine` leads along the clip."""
    config = config_of_refiner()
    model, tensors = random_flow_model(config, 2).eval(), tensors_of_pairs(config, [TRUE, TRUE])
    clips = model.clips(tensors)
    with torch.no_grad():
        begun = (model.transformer, config, clips.latents[:, :, :1], clips.intrinsics, clips.text, clips.text_mask)
        world = new_worlds(*begun, [5, 6], "toy")
        refined, ends = [clips.latents[:, :, :1]], []
        for t in range(1, FRAMES):
            path = clips.poses[:, 4 * t - 3 : 4 * t + 1]
            shape = (4, *config.tokenizer.grid)
            noise = latent_noise(world.seed, world.index[:, None], shape, "refiner")
            ends.append(endpoint(tensors["made"][:, :, t : t + 1], noise, 0.6))
            again = advance(model.transformer, config, world, path, ends[-1])[1]
            world, latents = refine(Refiner(config, model.transformer), world, tensors["made"][:, :, t : t + 1], path)
            assert torch.equal(again, latents)
            refined.append(latents)
        context, end = torch.cat(refined, 2), torch.cat(ends, 2)
        assert torch.allclose(rollout(model, clips, end), context, rtol=1e-4, atol=1e-4)
        state = end
        for now, then in ((600.0, 300.0), (300.0, 0.0)):
            time = torch.full((2, FRAMES - 1), now)
            velocity = streaming.velocities(model.transformer, config, clips, context, state, time)
            state = state - (now - then) / 1000 * velocity
    assert (state - context[:, :, 1:]).norm() <= 1e-4 * context.norm()


def test_a_run_goes_from_pairs_to_a_world_with_a_refiner(folder: Path, tmp_path: Path) -> None:
    run = PairsRun(world=str(folder / "model"), data=str(folder / "latents"), out=str(tmp_path / "pairs"), count=4)
    run = dataclasses.replace(run, latents=6, batch=2)
    pairs.train(dataclasses.replace(run, count=2))
    pairs.train(run)
    pairs.train(dataclasses.replace(run, out=str(tmp_path / "whole")))
    resumed, whole = (open_pairs(tmp_path / name, toy().text).tensors for name in ("pairs", "whole"))
    assert all(torch.equal(x, resumed[name]) for name, x in whole.items())
    assert whole["made"].shape == whole["latents"].shape == (4, 4, 6, 2, 2)
    assert torch.equal(whole["made"][:, :, 0], whole["latents"][:, :, 0])
    with pytest.raises(CheckpointError, match="expected pairs of a model with text"):
        open_pairs(tmp_path / "pairs", dataclasses.replace(toy().text, max_words=3))

    refiner.train(settings(folder, tmp_path, depth=1))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {"validation_psnr_made_1s", "validation_psnr_refined_1s", "validation_gradient_refined_last"} <= set(
        lines[-1]
    )
    plain, refined = (WorldModel.from_pretrained(tmp_path / "export", refine=r) for r in (False, True))
    assert refined.refiner is not None
    assert len(refined.refiner.transformer.blocks) == 1
    before = WorldModel.from_pretrained(folder / "model").transformer
    for left, right in zip(before.parameters(), plain.transformer.parameters(), strict=True):
        assert torch.equal(left.bfloat16().float(), right)  # the world model stays as it was
    again = settings(folder, tmp_path, depth=1)
    again = dataclasses.replace(
        again,
        run=RunConfig(out=str(tmp_path / "on"), steps=1, batch=2, lr=1e-9, warmup=0, init=str(tmp_path / "export")),
    )
    refiner.train(again)
    carried = load_refiner(tmp_path / "on" / "export", toy()).transformer
    for left, right in zip(refined.refiner.transformer.parameters(), carried.parameters(), strict=True):
        assert torch.allclose(left, right, atol=1e-6)
    state, _ = refined.reset([np.zeros((SIDE, SIDE, 3), np.uint8)], prompts=["red room"])
    _, frames = refined.step(state, np.tile(np.eye(4), (1, 4, 1, 1)))
    assert frames.shape == (1, 4, SIDE, SIDE, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"curriculum": (3, 2, 1)}, "rising steps"), ({"latents": 2}, "latents >= 3"), ({"uniform": 0.9}, "at_endpoint")],
)
def test_wrong_settings_are_named(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        settings(tmp_path, tmp_path, **changes)
