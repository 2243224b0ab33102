"""The transformer and its inputs against public implementations: diffusers, and golden files of a streaming one."""

import dataclasses
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from world_model.camera import camera_rows, cell_intrinsics, pack_plucker, plucker_rays, relative_to_first
from world_model.config import TextConfig, TokenizerConfig, TransformerConfig, WorldConfig
from world_model.dynamics import new_worlds
from world_model.memory import read_memory, write_memory
from world_model.presets import tiny_sana
from world_model.released import diffusers_names, ignored_keys, load_released
from world_model.sampler import sample_chunk
from world_model.transformer import SanaWM

TOLERANCE = 1e-5  # relative, float32
PARAMETERS = 2_661_800_448  # of the released model


def padded(head_dim: int) -> int:
    """The head width that flash kernels take, and with which some implementations scale."""
    return next(width for width in (32, 64, 128, 256) if width >= head_dim)


def relative(got: Tensor, expected: Tensor) -> float:
    return ((got - expected).norm() / expected.norm()).item()


@dataclass(frozen=True)
class Golden:
    """One golden file: what a public streaming implementation made of random weights and inputs."""

    config: dict[str, int]
    weights: dict[str, Tensor]  # original names
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]

    @staticmethod
    def read(path: Path) -> "Golden":
        groups: dict[str, dict[str, Tensor]] = {"config": {}, "weights": {}, "input": {}, "output": {}}
        with np.load(path) as file:
            for name in file.files:
                group, key = name.split("/", 1)
                groups[group][key] = torch.from_numpy(file[name])
        config = {key: int(value) for key, value in groups["config"].items()}
        return Golden(config, groups["weights"], groups["input"], groups["output"])

    def transformer(self, folder: Path, width: int) -> SanaWM:
        """The golden weights, loaded as a user's file would be, with softmax temperature 1/sqrt(width)."""
        cfg = TransformerConfig(**self.config, rms_envelope=True, main_scale_width=width, camera_scale_width=width)
        transformer = SanaWM(cfg).eval().requires_grad_(False)
        torch.save({"generator": {f"model.{k}": v for k, v in self.weights.items()}}, folder / "model.pt")
        load_released(transformer, folder / "model.pt")
        return transformer


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `golden` runs for every streaming file of every golden folder."""
    if "golden" in metafunc.fixturenames:
        folders = metafunc.config.getoption("golden") or [Path(__file__).parents[1] / "golden"]
        files = [file for folder in folders for file in sorted(Path(folder).glob("streaming_*.npz"))]
        metafunc.parametrize("golden", files, ids=[file.stem for file in files], indirect=True)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden.read(request.param)


def world_config(golden: Golden, transformer: SanaWM) -> WorldConfig:
    """The released model's semantics, with the golden file's sizes, steps and window."""
    inputs, cfg = golden.inputs, transformer.cfg
    first, block = inputs["chunks"][:2].tolist()
    assert first == block + 1
    rows, columns = inputs["noise"].shape[-2:]
    return dataclasses.replace(
        tiny_sana(),
        transformer=cfg,
        tokenizer=TokenizerConfig(
            latent_channels=cfg.latent_channels,
            temporal_stride=8,
            spatial_stride=32,
            height=32 * rows,
            width=32 * columns,
        ),
        text=TextConfig(channels=cfg.caption_channels),
        steps=tuple(inputs["steps"].tolist()),
        block=block,
        recent=block * (int(inputs["window"]) - 1),  # the sink is counted as one of the window's chunks
    )


@torch.no_grad()
def rollout(golden: Golden, transformer: SanaWM) -> tuple[Tensor, list[Tensor]]:
    """All latents of a streamed clip, and the first velocity of each chunk."""
    inputs, config = golden.inputs, world_config(golden, transformer)
    text, mask, start = inputs["text"], inputs["text_mask"].bool(), inputs["first"]
    state = new_worlds(transformer, config, start, torch.ones(1, 4), text, mask, [0], "golden")
    latents, velocities, done = [], [], 0
    for frames in inputs["chunks"].tolist():
        part = slice(done, done + frames)
        cache, past, past_mask = read_memory(state, config)
        given = transformer.condition(
            text,
            mask,
            inputs["camera"][:, part],
            inputs["plucker"][:, :, part],
            torch.arange(done, done + frames)[None],
            past=past,
            past_mask=past_mask,
        )
        first = start if done == 0 else None
        noisy, time = inputs["noise"][:, :, part].clone(), torch.full((1, frames), float(config.steps[0]))
        if first is not None:
            noisy[:, :, :1], time[:, 0] = first, 0
        velocities.append(transformer(noisy, time, given, cache)[0])
        chunk, written = sample_chunk(transformer, given, cache, inputs["noise"][:, :, part], config.steps, first)
        state = write_memory(state, written, config)
        latents.append(chunk)
        done += frames
    return torch.cat(latents, 2), velocities


def test_a_streamed_clip_equals_the_public_one(golden: Golden, tmp_path: Path) -> None:
    transformer = golden.transformer(tmp_path, padded(golden.config["head_dim"]))
    latents, velocities = rollout(golden, transformer)
    assert relative(latents, golden.outputs["latents"]) <= TOLERANCE
    for i, velocity in enumerate(velocities):
        assert relative(velocity, golden.outputs[f"first_velocity_{i}"]) <= TOLERANCE, f"chunk {i}"


@torch.no_grad()
def dense_velocity(golden: Golden, transformer: SanaWM) -> Tensor:
    """One call for the whole clip, time 0 on the first latent and 500 elsewhere."""
    inputs = golden.inputs
    index = torch.arange(inputs["noise"].shape[2])[None]
    mask = inputs["text_mask"].bool()
    given = transformer.condition(inputs["text"], mask, inputs["camera"], inputs["plucker"], index)
    return transformer(inputs["noise"], 500.0 * (index > 0), given)[0]


def test_a_dense_call_equals_the_public_one(golden: Golden, tmp_path: Path) -> None:
    velocity = dense_velocity(golden, golden.transformer(tmp_path, golden.config["head_dim"]))
    assert relative(velocity, golden.outputs["dense_velocity_at_500"]) <= TOLERANCE


@pytest.mark.parametrize("change", [{"rms_envelope": False}, {"main_scale_width": 256}, {"camera_scale_width": 256}])
def test_every_switch_matters_to_a_golden_clip(golden: Golden, tmp_path: Path, change: dict) -> None:
    transformer = golden.transformer(tmp_path, golden.config["head_dim"])
    other = SanaWM(dataclasses.replace(transformer.cfg, **change)).eval()
    other.load_state_dict(transformer.state_dict())
    assert relative(dense_velocity(golden, other), golden.outputs["dense_velocity_at_500"]) > 30 * TOLERANCE


@pytest.mark.parametrize("case", range(3))
def test_camera_and_plucker_equal_the_public_ones(golden_dir: Path, case: int) -> None:
    with np.load(golden_dir / "camera.npz") as file:
        names = ("c2w", "intrinsics", "size", "stride", "camera", "plucker")
        poses, lens, size, stride, camera, plucker = (torch.from_numpy(file[f"pack{case}_{name}"]) for name in names)
    time, height, width = stride.tolist()
    size = tuple(size.tolist())
    grid = size[0] // height, size[1] // width
    poses, cells = relative_to_first(poses[None]), cell_intrinsics(lens, size, grid)[None]
    torch.testing.assert_close(camera_rows(poses[:, ::time], cells[:, ::time])[0], camera, atol=1e-5, rtol=1e-5)
    packed = pack_plucker(plucker_rays(poses, cells, grid), time)[0]
    torch.testing.assert_close(packed, plucker, atol=1e-5, rtol=1e-5)


def meta_model() -> SanaWM:
    with torch.device("meta"):
        return SanaWM(TransformerConfig())


@pytest.mark.parametrize("layout", ["diffusers", "nvlabs_sglang"])
def test_the_full_size_model_has_the_keys_and_shapes_of_the_released_checkpoint(golden_dir: Path, layout: str) -> None:
    manifest = json.loads((golden_dir / "checkpoint_manifest.json").read_text())[layout]
    meta = {name: torch.empty(shape, device="meta") for name, shape in manifest.items()}
    released = {name: list(tensor.shape) for name, tensor in diffusers_names(meta, Path(layout)).items()}
    transformer = meta_model()
    own = {name: list(tensor.shape) for name, tensor in transformer.state_dict().items()}
    absent = {"pos_embed"} | ({"y_embedder.y_embedding"} if layout == "diffusers" else set())
    ignored = ignored_keys(transformer.cfg) - absent
    assert released.keys() == own.keys() | ignored
    assert not own.keys() & ignored
    assert {name: released[name] for name in own} == own


def test_the_full_size_model_has_the_parameters_of_the_released_one(golden_dir: Path) -> None:
    # The released count includes parameters that no forward reads: the raymap embedder, and the delta-rule
    # gates of softmax blocks. It leaves out what was stored as a buffer: recall gates, null caption.
    manifest = json.loads((golden_dir / "checkpoint_manifest.json").read_text())["diffusers"]
    transformer = meta_model()
    unused = {name for name in ignored_keys(transformer.cfg) & manifest.keys() if "recall_gate" not in name}
    counted = sum(math.prod(manifest[name]) for name in unused)
    assert counted == 8_960 + 5 * (2 * (20 * 2240 + 20) + 2 * 20)
    assert sum(p.numel() for p in transformer.parameters()) + counted == PARAMETERS
    buffers = [name for name in manifest if "recall_gate" in name]
    assert sum(math.prod(shape) for shape in manifest.values()) - len(buffers) == PARAMETERS
    kinds = [re.sub("Attention", "", type(block.attn).__name__) for block in transformer.blocks]
    assert kinds == ["DeltaRule", "DeltaRule", "DeltaRule", "Softmax"] * 5


@dataclass(frozen=True)
class DenseCase:
    """A diffusers transformer with random weights, and one dense call of it."""

    folder: Path
    cfg: TransformerConfig
    inputs: dict[str, Tensor]
    reference: torch.nn.Module

    def velocity(self, patch: pytest.MonkeyPatch, *, main: int, camera: int, envelope: bool) -> Tensor:
        """What diffusers computes, in float32 throughout, with the switches that it does not have itself."""
        from diffusers.models.transformers import transformer_sana_wm

        attention = torch.nn.functional.scaled_dot_product_attention

        def scaled(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **others):
            if attn_mask is None:  # self-attention; only the camera branch comes padded, if padding is needed
                others["scale"] = (main if query.shape[-1] == self.cfg.head_dim else camera) ** -0.5
            return attention(query, key, value, attn_mask=attn_mask, **others)

        with patch.context() as patched, torch.no_grad():
            patched.setattr(Tensor, "bfloat16", lambda x: x)  # it casts softmax attention, at any dtype
            patched.setattr(torch.nn.functional, "scaled_dot_product_attention", scaled)
            if not envelope:
                patched.setattr(transformer_sana_wm, "_downscale_to_reference_rms", lambda before, after: after)
            return self.reference(
                hidden_states=self.inputs["latents"],
                timestep=self.inputs["time"][:, None],
                encoder_hidden_states=self.inputs["text"][:, None],
                encoder_attention_mask=self.inputs["mask"],
                camera_conditions=self.inputs["camera"],
                chunk_plucker=self.inputs["plucker"],
            ).sample

    @torch.no_grad()
    def ours(self, **switches: object) -> Tensor:
        transformer = SanaWM(dataclasses.replace(self.cfg, **switches)).eval()
        load_released(transformer, self.folder)
        x = self.inputs
        index = torch.arange(x["latents"].shape[2]).expand(2, -1)
        given = transformer.condition(x["text"], x["mask"].bool(), x["camera"], x["plucker"], index)
        return transformer(x["latents"], x["time"], given)[0]


@pytest.fixture(scope="module", params=(32, 112))
def dense(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, randomise: Callable[..., torch.nn.Module]
) -> DenseCase:
    diffusers = pytest.importorskip("diffusers", "0.42.1", "diffusers 0.42.1 is not installed (extra `test`)")
    head, heads, frames, rows, columns = request.param, 2, 5, 3, 4
    cfg = TransformerConfig(latent_channels=8, caption_channels=24, depth=4, heads=heads, head_dim=head)
    reference = diffusers.SanaWMTransformer3DModel(
        in_channels=cfg.latent_channels,
        num_layers=cfg.depth,
        hidden_size=cfg.width,
        num_attention_heads=heads,
        linear_head_dim=head,
        caption_channels=cfg.caption_channels,
    )
    randomise(reference.eval())
    folder = tmp_path_factory.mktemp("diffusers")
    reference.save_pretrained(folder, max_shard_size="1MB")
    draw = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw)

    turn = torch.linalg.qr(torch.eye(3) + 0.2 * normal(2, frames, 3, 3))[0]
    poses = torch.eye(4).repeat(2, frames, 1, 1)
    poses[..., :3, :3], poses[..., :3, 3] = (
        turn * turn.diagonal(dim1=-2, dim2=-1).sign()[..., None, :],
        normal(2, frames, 3),
    )
    lens = torch.tensor([3.0, 2.5, 1.7, 1.2]) + 0.2 * normal(2, 1, 4)
    inputs = {
        "latents": normal(2, 8, frames, rows, columns),
        "time": torch.tensor([[0.0, 963.3, 500.0, 88.0, 1000.0], [0.0, 727.0, 727.0, 727.0, 727.0]]),
        "text": normal(2, 6, 24),
        "mask": torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0]]),
        "camera": camera_rows(poses, lens),
        "plucker": normal(2, 48, frames, rows, columns),
    }
    return DenseCase(folder, cfg, inputs, reference)


def test_a_dense_call_equals_diffusers(dense: DenseCase, monkeypatch: pytest.MonkeyPatch) -> None:
    head = dense.cfg.head_dim
    expected = dense.velocity(monkeypatch, main=head, camera=padded(head), envelope=True)
    got = dense.ours(main_scale_width=head, camera_scale_width=padded(head), rms_envelope=True)
    assert relative(got, expected) <= TOLERANCE


@pytest.mark.parametrize("dense", [112], indirect=True)  # the width that is padded
@pytest.mark.parametrize(("main", "camera", "envelope"), [(112, 112, True), (128, 128, True), (112, 128, False)])
def test_every_switch_does_what_diffusers_would(
    dense: DenseCase, monkeypatch: pytest.MonkeyPatch, main: int, camera: int, envelope: bool
) -> None:
    expected = dense.velocity(monkeypatch, main=main, camera=camera, envelope=envelope)
    got = dense.ours(main_scale_width=main, camera_scale_width=camera, rms_envelope=envelope)
    assert relative(got, expected) <= TOLERANCE
    other = dense.ours(main_scale_width=112, camera_scale_width=128, rms_envelope=True)
    assert relative(other, expected) > 10 * TOLERANCE
