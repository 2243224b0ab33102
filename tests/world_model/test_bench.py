"""The bench measures real steps, writes what it measured, and compares like with like. Nothing here is timed."""

import dataclasses
import json
from importlib import metadata
from pathlib import Path

import pytest
import torch

from world_model import bench, bench_diffusers
from world_model.bench_work import Samples, alternating, full_worlds, next_chunk, path
from world_model.config import TextConfig, TokenizerConfig, TransformerConfig, WorldConfig
from world_model.errors import BackendError, CheckpointError, InputError
from world_model.model import WorldModel
from world_model.presets import nano
from world_model.sampler import sample_chunk

CPU = torch.device("cpu")


def toy() -> WorldConfig:
    """Nano's semantics on four tokens."""
    transformer = TransformerConfig(
        latent_channels=4,
        caption_channels=8,
        plucker_channels=24,
        depth=2,
        softmax_every=2,
        heads=2,
        head_dim=16,
        mlp_ratio=2.0,
    )
    return dataclasses.replace(
        nano(),
        name="toy",
        transformer=transformer,
        tokenizer=TokenizerConfig(latent_channels=4, height=32, width=32, base_width=8),
        text=TextConfig(vocabulary=("room",), channels=8),
        recent=2,
    )


@pytest.fixture(scope="module")
def model() -> WorldModel:
    return WorldModel.random(toy())


@pytest.fixture
def arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A quick bench of the toy that writes to the test's own folder."""
    monkeypatch.setitem(bench.RANDOM, "toy", toy)
    return ["--random", "--model", "toy", "--repeats", "2", "--batch", "3", "1", "--out", str(tmp_path / "speed")]


def test_the_program_writes_what_it_measures(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.main(arguments)
    report = json.loads((tmp_path / "speed.json").read_text())
    assert "--repeats 2" in report["command"]
    assert report["random"] is True
    assert report["machine"]["torch"] == metadata.version("torch")
    assert report["machine"]["threads"] == torch.get_num_threads()
    assert report["machine"]["cores"] >= 1
    assert report["model"]["forwards_per_chunk"] == 3
    assert [row["batch"] for row in report["speed"]] == [1, 3]
    for row in report["speed"]:
        assert row.keys() == {field.name for field in dataclasses.fields(bench.Speed)}
        assert row["frames_per_second"] == pytest.approx(1000 * row["batch"] * 4 / row["step_ms"])
        assert row["times_realtime"] == pytest.approx(row["frames_per_second"] / row["batch"] / 16)
        assert row["peak_cuda_mib"] is None
        assert all(row[name] > 0 for name in row if name != "peak_cuda_mib")
    text = (tmp_path / "speed.md").read_text()
    assert text in capsys.readouterr().out
    assert "| frames per second |" in text
    assert "| batch 1 | batch 3 |" in text


def test_bytes_are_those_of_a_world_with_a_full_window(model: WorldModel) -> None:
    state = full_worlds(model, 2)
    assert sum(entry.tokens for entry in state.window) == 4 * (model.config.sink + model.config.recent)
    assert bench.speed(model, 2, repeats=1).bytes_per_world == state.bytes_per_world()


@torch.no_grad()
def test_the_measured_forwards_are_those_of_a_step(model: WorldModel) -> None:
    state = full_worlds(model, 1)  # more would go as a forward a core, whose batch rounds otherwise
    noise = torch.randn(1, 4, 1, 2, 2)
    _, expected = model.step_latent(state, path(1, 4), noise=noise)
    latents, _ = sample_chunk(model.transformer, *next_chunk(model, state), noise, model.config.steps)
    assert torch.equal(latents, expected.values)


def test_works_take_turns_after_a_warm_up() -> None:
    done = []
    works = {"a": lambda: done.append("a"), "b": lambda: done.append("b")}
    taken = alternating(works, 3, CPU, "test")
    assert "".join(done) == "abababab"
    assert [len(samples.milliseconds) for samples in taken.values()] == [3, 3]


def test_medians_and_quantiles() -> None:
    samples = Samples((5.0, 1.0, 2.0, 3.0, 100.0))
    assert (samples.median, samples.quantile(0.0), samples.quantile(0.8), samples.quantile(0.95)) == (3, 1, 5, 100)


# ---- beside diffusers -------------------------------------------------------------------------------------


def test_both_sides_compute_the_same(model: WorldModel) -> None:
    pytest.importorskip("diffusers", "0.42.1", "diffusers 0.42.1 is not installed (extra `test`)")
    beside = bench_diffusers.side_by_side(model, batch=2, repeats=1)
    assert beside.difference <= 1e-5
    assert [row.work for row in beside.rows] == list(bench_diffusers.WORKS)
    for row in beside.rows:
        assert row.ratio == min(row.diffusers_ms, row.diffusers_float32_ms) / row.ours_ms
        assert "4 latents" in row.meaning  # sink 1, recent 2, the chunk's own 1
    assert torch.ones(1).bfloat16().dtype == torch.bfloat16  # their cast is theirs again
    text = "\n".join(bench.markdown_beside(dataclasses.asdict(beside)))
    assert f"**{beside.rows[0].ratio:.2f}x**" in text


def test_without_diffusers_its_rows_say_so(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = metadata.version

    def version(package: str) -> str:
        if package == "diffusers":
            raise metadata.PackageNotFoundError(package)
        return found(package)

    monkeypatch.setattr(metadata, "version", version)
    bench.main(arguments)
    report = json.loads((tmp_path / "speed.json").read_text())
    assert report["side_by_side"] == {"diffusers": None, "reason": "diffusers not installed"}
    assert report["machine"]["diffusers"] is None
    assert (tmp_path / "speed.md").read_text().count("| diffusers not installed |") == len(bench_diffusers.WORKS)


# ---- bad input --------------------------------------------------------------------------------------------


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(CheckpointError, match="got 'absent'"):
        bench.main(["--model", "absent"])


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--repeats", "0"], "--repeats: expected a positive number, got 0"),
        (["--threads", "-1"], "--threads: expected a positive number, got -1"),
        (["--batch", "1", "0"], "--batch: expected positive numbers, got"),
        (["--model", "large"], "--model with --random: expected one of .*'toy'.*, got 'large'"),
    ],
)
def test_bad_options_are_refused(arguments: list[str], extra: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        bench.main([*arguments, *extra])


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_a_device_that_is_not_there_is_refused(arguments: list[str]) -> None:
    with pytest.raises(BackendError, match="got 'cuda' without CUDA"):
        bench.main([*arguments, "--device", "cuda"])
