"""Sharpening the decoder: which frames belong to which latents, what the loss is made of, what a run leaves alone."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.world_model.train.toy_world import FRAMES, SIDE, toy
from world_model.checkpoint import load_folder
from world_model.errors import CheckpointError, EpisodeError, InputError
from world_model.train import decoder, pairs, snapshot
from world_model.train.data.augment import VARIANTS
from world_model.train.data.clips import to_video
from world_model.train.data.episode import Episode, write_episode
from world_model.train.data.latents import LatentsRun, fingerprint
from world_model.train.data.latents import train as encode
from world_model.train.decoder import DecoderDuel, DecoderRun, PixelJudge, decode_windows, decoder_loss
from world_model.train.footage import Footage, open_footage
from world_model.train.judge import JudgeConfig, judge_clips
from world_model.train.loop import RunConfig
from world_model.train.pairs import PairsRun
from world_model.vae import VideoTokenizer

SMALL = JudgeConfig(width=8, depth=1, smoothness=0.1)
LATENTS = 4  # of a pair


@pytest.fixture(scope="module")
def studio(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`pairs` of the toy model in two `episodes` of which no frame is like another, in all variants."""
    root = tmp_path_factory.mktemp("studio")
    drawn = np.random.default_rng(0)
    for i in range(2):
        patches = drawn.integers(0, 255, (FRAMES, 4, 4, 3), dtype=np.uint8).repeat(SIDE // 4, 1).repeat(SIDE // 4, 2)
        still = np.tile(np.eye(4, dtype=np.float32), (FRAMES, 1, 1))
        lens = np.tile(np.array([24, 24, 16, 16], np.float32), (FRAMES, 1))
        episode = Episode(frames=patches, c2w=still, intrinsics=lens, caption="a red room", fps=16.0)
        write_episode(root / "episodes" / f"{i:06d}", episode)
    tokenizer, episodes, latents = str(folder / "tokenizer"), (str(root / "episodes"),), str(root / "latents")
    encode(LatentsRun(tokenizer=tokenizer, data=episodes, out=latents, start_every=2, augment=True))
    model, made = str(folder / "model"), str(root / "pairs")
    pairs.train(PairsRun(world=model, data=latents, out=made, count=16, latents=LATENTS, batch=8))
    return root


def footage_of(studio: Path) -> Footage:
    return open_footage(studio / "pairs", (str(studio / "episodes"),), studio / "cache", toy())


def run_of(folder: Path, studio: Path, out: Path, **changes) -> DecoderRun:
    run = RunConfig(out=str(out), steps=3, batch=4, lr=1e-3, warmup=1, log_every=1)
    base = DecoderRun(
        run=run,
        world=str(folder / "model"),
        data=str(studio / "pairs"),
        validation=str(studio / "pairs"),
        episodes=(str(studio / "episodes"),),
        cache=str(studio / "cache"),
        judge=SMALL,
        pull_full=1,
        validation_clips=2,
    )
    return dataclasses.replace(base, **changes)


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def duel_of(folder: Path) -> DecoderDuel:
    torch.manual_seed(0)
    _, (_, tokenizer, _) = load_folder(folder / "model")
    torch.nn.init.normal_(tokenizer.decoder.layers[-1].weight, std=0.01)  # which is silent at the start of training
    return DecoderDuel(tokenizer, PixelJudge(2 * tokenizer.cfg.temporal_stride, SMALL))


def test_frames_are_those_that_the_latents_were_made_of(folder: Path, studio: Path) -> None:
    footage = footage_of(studio)
    assert {name.partition("@")[0].partition("~")[2] for name in footage.ids} == {
        suffix.removeprefix("~") for suffix in VARIANTS
    }
    assert any(not name.endswith("@0") for name in footage.ids)
    _, (_, tokenizer, _) = load_folder(folder / "model")
    clips = footage.first(100)
    with torch.no_grad():
        encoded = tokenizer.encode(to_video(clips["frames"]))
    assert torch.allclose(encoded, clips["latents"], atol=0.02 * float(encoded.abs().max()))  # as kept, in bfloat16
    footage.require(tokenizer)


def test_a_window_shows_the_stacks_of_its_latents(studio: Path) -> None:
    footage, stride = footage_of(studio), toy().tokenizer.temporal_stride
    whole = footage.first(100)
    windows, names = footage.sample(64, 2, draw())
    seen = set()
    for i, name in enumerate(names):
        clip, _, first = name.rpartition("+")
        seen.add(int(first))
        number, k = footage.ids.index(clip), int(first)
        for side in ("latents", "made"):
            same = [n for n, other in enumerate(footage.ids) if other == clip]  # a clip may be drawn, and played, twice
            expected = [whole[side][n][:, [max(k - 1, 0), k, k + 1]] for n in same]
            assert any(torch.equal(windows[side][i], each) for each in expected)
        stacked = torch.cat([whole["frames"][number][:1].expand(stride - 1, -1, -1, -1), whole["frames"][number]])
        assert torch.equal(windows["frames"][i], stacked[k * stride : (k + 2) * stride])
    assert seen == set(range(LATENTS - 1))


def test_windows_are_decoded_as_whole_clips_are(folder: Path, studio: Path) -> None:
    tokenizer, latents = duel_of(folder).tokenizer, footage_of(studio).first(3)["latents"]
    whole = tokenizer.decode(latents, None)[0]
    from_start = decode_windows(tokenizer, torch.cat([latents[:, :, :1], latents], 2))
    assert torch.allclose(from_start[:, :, tokenizer.cfg.temporal_stride - 1 :], whole, atol=1e-5)
    assert torch.allclose(decode_windows(tokenizer, latents[:, :, 1:]), whole[:, :, -8:], atol=1e-5)


def test_a_judge_of_pixels_learns_to_tell_blur_from_truth() -> None:
    torch.manual_seed(0)
    judge = PixelJudge(4, JudgeConfig(width=8, depth=1, smoothness=0.1))
    learner = torch.optim.AdamW(judge.parameters(), lr=3e-3)

    def blurred(frames: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool3d(frames, (1, 3, 3), stride=1, padding=(0, 1, 1))

    for _ in range(60):
        true = torch.rand(4, 3, 4, SIDE, SIDE) * 2 - 1
        learner.zero_grad()
        judge_clips(judge, true, blurred(true), draw(), SMALL).loss.backward()
        learner.step()
    unseen = torch.rand(8, 3, 4, SIDE, SIDE) * 2 - 1
    verdict = judge_clips(judge, unseen, blurred(unseen), draw(), SMALL)
    assert verdict.fooled < 0.1  # of the patches
    assert (-verdict.towards * (unseen - blurred(unseen))).sum() > 0  # a step against it adds what blur took away


def test_the_loss_is_error_of_both_and_a_pull_on_truth(
    folder: Path, studio: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    duel, config, seen = duel_of(folder), run_of(folder, studio, Path("unused"), played=0.25), []
    windows = footage_of(studio).sample(4, 2, draw())[0]
    true = to_video(windows["frames"])

    def watched(*arguments):
        seen.append(decode_windows(*arguments))
        return seen[-1]

    monkeypatch.setattr(decoder, "decode_windows", watched)
    judges, logs = [], {}
    for pull in (0.0, 0.3):
        duel.zero_grad()
        loss, logs = decoder_loss(duel, {**windows, "pull": torch.tensor(pull)}, draw(), config)
        seen[-1].retain_grad()
        loss.backward()
        judges.append([weight.grad.clone() for weight in duel.judge.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*judges, strict=True))
    shown = seen[0].detach().clone().requires_grad_()
    errors = [shown[:4] - true, shown[4:] - true]
    assert logs["l1"] == pytest.approx(errors[0].abs().mean().item())
    assert logs["l1_played"] == pytest.approx(errors[1].abs().mean().item())
    edges = [error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean() for error in errors]
    flicker = [error.diff(dim=2).abs().mean() for error in errors]
    both = [error.abs().mean() + 0.5 * edge + time for error, edge, time in zip(errors, edges, flicker, strict=True)]
    (from_error,) = torch.autograd.grad((both[0] + 0.25 * both[1]) / 1.25, shown)
    assert torch.allclose(seen[0].grad, from_error, atol=1e-8)
    push = seen[1].grad - from_error
    assert push[:4].norm() == pytest.approx(float(0.3 * from_error[:4].norm()), rel=1e-4)
    assert torch.allclose(push[4:], torch.zeros(()), atol=1e-8)  # what was played learns from its error alone
    nearer = shown.detach()[:4] - push[:4] / push[:4].norm()
    assert duel.judge(nearer).mean() > duel.judge(shown.detach()[:4]).mean()  # it looks truer


def test_a_run_changes_the_decoder_and_nothing_else(folder: Path, studio: Path, tmp_path: Path) -> None:
    world = shutil.copytree(folder / "model", tmp_path / "world")
    (world / "refiner.json").write_text("of latents, whose meaning stays")
    config = run_of(folder, studio, tmp_path / "whole", world=str(world))
    decoder.train(config)
    out = Path(config.run.out)
    before, after = (load_folder(path)[1] for path in (world, out / "export"))
    for one, other in ((before[0], after[0]), (before[2], after[2])):
        for name, weight in one.state_dict().items():
            assert torch.equal(weight.bfloat16(), other.state_dict()[name].bfloat16()), name
    changed = {name for name, weight in before[1].state_dict().items() if not same(weight, after[1], name)}
    assert changed
    assert all(name.startswith("decoder.layers.") for name in changed)
    assert (out / "export" / "refiner.json").read_text() == (world / "refiner.json").read_text()
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert {"l1", "l1_played", "fooled"} <= lines[0].keys()
    assert {"validation_psnr_true_1s", "validation_gradient_played_1s"} <= lines[-1].keys()
    assert list((out / "pictures").glob("decoder_*.png"))

    for steps in (1, 3):
        run = dataclasses.replace(config.run, out=str(tmp_path / "parts"), steps=steps)
        decoder.train(dataclasses.replace(config, run=run))
    whole, parts = (snapshot.read_weights(tmp_path / n / "snapshots" / "step_00000003") for n in ("whole", "parts"))
    assert all(torch.equal(parts[name], weight) for name, weight in whole.items())


def same(weight: Tensor, tokenizer: VideoTokenizer, name: str) -> bool:
    return torch.equal(weight.bfloat16(), tokenizer.state_dict()[name].bfloat16())


def test_latents_outlive_the_decoder(folder: Path) -> None:
    tokenizer = duel_of(folder).tokenizer
    before = fingerprint(tokenizer)
    torch.nn.init.zeros_(tokenizer.decoder.layers[0].weight)
    assert fingerprint(tokenizer) == before


def test_what_does_not_fit_is_refused(folder: Path, studio: Path, tmp_path: Path) -> None:
    shutil.copytree(studio / "episodes" / "000000", tmp_path / "others" / "000000")
    with pytest.raises(InputError, match="clips of the 1 episodes that were given, got episodes/00000"):
        open_footage(studio / "pairs", (str(tmp_path / "others"),), tmp_path, toy())
    shutil.copytree(studio / "episodes", tmp_path / "again" / "episodes")
    twice = (str(studio / "episodes"), str(tmp_path / "again" / "episodes"))
    with pytest.raises(EpisodeError, match="episodes of different names, got episodes/000000 twice"):
        open_footage(studio / "pairs", twice, tmp_path, toy())
    with pytest.raises(CheckpointError, match="latents that this tokenizer makes of the episode's frames, got others"):
        decoder.train(run_of(folder, studio, tmp_path / "run", episodes=(str(folder / "episodes"),)))
    with pytest.raises(InputError, match=r"expected no run\.init"):
        run_of(folder, studio, tmp_path, run=RunConfig(out="", steps=1, init="somewhere"))
    with pytest.raises(InputError, match="at most the 4 latents of a pair, got 5"):
        footage_of(studio).sample(1, 5, draw())
    with pytest.raises(InputError, match="expected latents >= 1, edge, flicker and played >= 0"):
        run_of(folder, studio, tmp_path, played=-1.0)
    with pytest.raises(InputError, match="judge_lr > 0, pull >= 0 and pull_full >= 1"):
        run_of(folder, studio, tmp_path, pull_full=0)
    index = json.loads((studio / "pairs" / "index.json").read_text())
    for part in index["parts"]:
        (tmp_path / part["file"]).write_bytes((studio / "pairs" / part["file"]).read_bytes())
        del part["ids"]
    (tmp_path / "index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="expected parts that name their clips"):
        open_footage(tmp_path, (str(studio / "episodes"),), tmp_path, toy())
