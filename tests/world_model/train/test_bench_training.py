"""The bench of training: what it times is what is trained, and its figures follow from what it counted."""

import json
from pathlib import Path

import pytest
import torch

from tests.world_model.train.toy_world import random_flow_model, toy
from world_model.errors import InputError
from world_model.train import streaming
from world_model.train.bench import PHASES, BenchRun, _Timed, count_gflop, train
from world_model.train.bench_objectives import Work, chunk_by_chunk, made_up_latents, streaming_work, works


def test_chunk_by_chunk_has_the_velocities_and_gradients_of_two_passes() -> None:
    ways = {"two": streaming.velocities, "naive": chunk_by_chunk}
    values, gradients = [], []
    for name, way in ways.items():
        work = streaming_work(name, way, random_flow_model(toy(), 0), batch=2, latents=5)
        value = work.loss(work.module, work.draw(torch.Generator().manual_seed(1)), torch.Generator().manual_seed(2))
        value.backward()
        values.append(value)
        gradients.append({n: p.grad for n, p in work.module.named_parameters() if p.grad is not None})
    torch.testing.assert_close(values[0], values[1], rtol=1e-5, atol=1e-6)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-3, atol=1e-5)


def test_every_objective_has_a_loss_with_gradients() -> None:
    for work in works(random_flow_model(toy(), 0), batch=2, latents=4):
        draw = torch.Generator().manual_seed(0)
        work.loss(work.module, work.draw(draw), draw).backward()
        moved = [p.grad.abs().sum() for p in work.module.parameters() if p.grad is not None]
        assert torch.isfinite(torch.stack(moved)).all(), work.name
        assert sum(moved) > 0, work.name


def test_flops_are_those_of_the_matrix_products() -> None:
    module = torch.nn.Linear(8, 16, bias=False)
    given = torch.randn(4, 8)
    work = Work("toy", module, lambda draw: {"x": given}, lambda m, t, draw: m(t["x"]).square().sum())
    timed = _Timed(work, BenchRun(), torch.device("cpu"))
    timed.data()
    once = 2 * 4 * 8 * 16 / 1e9
    assert count_gflop(timed) == pytest.approx(2 * once)  # forward, and the weight's gradient
    timed.update()
    assert timed.optimizers[0].state


def test_depthwise_convolutions_count_for_what_they_are() -> None:
    module = torch.nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False)
    given = torch.randn(2, 6, 5, 5, requires_grad=True)
    work = Work("toy", module, lambda draw: {"x": given}, lambda m, t, draw: m(t["x"]).square().sum())
    timed = _Timed(work, BenchRun(), torch.device("cpu"))
    timed.data()
    forward = 2 * (2 * 6 * 5 * 5) * 9 / 1e9
    assert count_gflop(timed) == pytest.approx(3 * forward)  # forward, the input's gradient and the weight's


def test_made_up_clips_have_the_layout_of_encoded_ones() -> None:
    data = made_up_latents(toy(), 6)
    windows = data.sample(3, 6, torch.Generator().manual_seed(0))
    assert windows.latents.shape == (3, 4, 6, 2, 2)
    assert windows.c2w.shape == (3, 21, 4, 4)
    assert torch.allclose(windows.c2w[:, 0], torch.eye(4).expand(3, 4, 4), atol=1e-6)


def test_it_prints_and_writes_a_row_an_objective(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    train(BenchRun(world=str(folder / "model"), batch=2, latents=4, rounds=1, clock="processor", out=str(tmp_path)))
    text = (tmp_path / "bench.md").read_text()
    assert text in capsys.readouterr().out
    found = json.loads((tmp_path / "bench.json").read_text())
    assert [row["objective"] for row in found["rows"]][:2] == ["streaming", "streaming, own rollouts"]
    for row in found["rows"]:
        step = row["data_ms"] + row["gradients_ms"] + row["update_ms"]
        assert row["samples_per_second"] == pytest.approx(2000 / step)
        assert row["tokens_per_second"] == pytest.approx(row["samples_per_second"] * 4 * 4)
        assert row["data_share"] == pytest.approx(row["data_ms"] / step)
        expected = row["gflop"] / (row["gradients_ms"] / 1000) / found["about"]["gflops_ceiling"]
        assert row["utilisation"] == pytest.approx(expected)
        assert row["saved_mib"] > 0
    assert found["rows"][1]["gflop"] > found["rows"][0]["gflop"]  # rollouts come on top
    assert set(PHASES) == {"data", "gradients", "update"}


def test_wrong_settings_are_named() -> None:
    with pytest.raises(InputError, match="latents >= 3"):
        BenchRun(latents=2)
    with pytest.raises(InputError, match="clock: expected one of"):
        BenchRun(clock="sundial")
    with pytest.raises(InputError, match="expected 'wall' on 'cuda'"):
        BenchRun(clock="processor", device="cuda")
    with pytest.raises(InputError, match="dtype: expected float32 or bfloat16"):
        BenchRun(dtype="float16")
