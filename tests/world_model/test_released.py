"""The released layouts: loaded strictly, converted with little memory, refused when they do not fit."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from world_model.checkpoint import main
from world_model.config import TransformerConfig
from world_model.errors import CheckpointError
from world_model.released import convert, ignored_keys, load_released
from world_model.transformer import SanaWM

CFG = TransformerConfig(latent_channels=4, caption_channels=8, depth=4, heads=2, head_dim=8)
ORIGINAL_NAMES = {"t_embedder.linear_1.": "t_embedder.mlp.0.", "t_embedder.linear_2.": "t_embedder.mlp.2."}


@pytest.fixture
def transformer(randomise: Callable[..., torch.nn.Module]) -> SanaWM:
    model = SanaWM(CFG)
    randomise(model.requires_grad_(False))
    return model


def released(transformer: SanaWM) -> dict[str, Tensor]:
    """Its weights as a diffusers file holds them: with what no forward reads."""
    softmax = {3}
    width, heads = transformer.cfg.width, transformer.cfg.heads
    unused = {
        "raymap_embedder.proj.weight": torch.ones(width, 3, 1, 1, 1),
        "raymap_embedder.proj.bias": torch.ones(width),
    }
    for i in range(transformer.cfg.depth):
        unused[f"blocks.{i}.attn.recall_gate"] = torch.ones(1)
        for name in ("beta_proj", "gate_proj") if i in softmax else ():
            unused[f"blocks.{i}.attn.{name}.weight"] = torch.ones(heads, width)
            unused[f"blocks.{i}.attn.{name}.bias"] = torch.ones(heads)
        for name in ("A_log", "dt_bias") if i in softmax else ():
            unused[f"blocks.{i}.attn.{name}"] = torch.ones(heads)
    return {**transformer.state_dict(), **unused}


def original(transformer: SanaWM) -> dict[str, Tensor]:
    """Its weights as the original file holds them."""
    tensors = {}
    for name, tensor in released(transformer).items():
        for new, old in ORIGINAL_NAMES.items():
            name = name.replace(new, old)
        tensors[name] = tensor
    words = torch.ones(300, transformer.cfg.caption_channels)
    return {**tensors, "pos_embed": torch.zeros(1, 8, 16), "y_embedder.y_embedding": words}


def clutter(tensors: dict[str, Tensor]) -> dict[str, object]:
    """What a training checkpoint carries besides: a critic and optimizers."""
    state = {i: {"exp_avg": torch.ones_like(t), "step": torch.tensor(1.0)} for i, t in enumerate(tensors.values())}
    return {
        "critic": {n: t + 1 for n, t in tensors.items()},
        "optimizer": {"state": state, "param_groups": [{"lr": 1e-4}]},
    }


def save_as(kind: str, transformer: SanaWM, folder: Path) -> Path:
    """The same weights in one of the layouts that were released."""
    path = folder / (kind.replace(" ", "_") + (".pt" if "pt" in kind else ".safetensors"))
    if kind == "diffusers":
        save_file(released(transformer), path)
    elif kind == "original":
        save_file(original(transformer), path)
    elif kind == "original, model. in front":
        save_file({f"model.{name}": tensor for name, tensor in original(transformer).items()}, path)
    elif kind == "pt, bare":
        torch.save(original(transformer), path)
    else:
        names = kind.removeprefix("pt, ").split(" and ")
        wrong = {name: -tensor for name, tensor in original(transformer).items()}
        content = {name: wrong for name in names[1:]} | {names[0]: original(transformer)}
        torch.save(content | clutter(wrong), path)
    return path


LAYOUTS = [
    "diffusers",
    "original",
    "original, model. in front",
    "pt, generator",
    "pt, generator_ema",
    "pt, model",
    "pt, state_dict",
    "pt, generator and generator_ema and model",
    "pt, generator_ema and state_dict",
    "pt, bare",
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_released_layout_is_loaded(transformer: SanaWM, tmp_path: Path, layout: str) -> None:
    path, loaded = save_as(layout, transformer, tmp_path), SanaWM(CFG)
    load_released(loaded, path)
    for name, tensor in transformer.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def save_shards(tensors: dict[str, Tensor], folder: Path) -> None:
    names, shards = sorted(tensors), {}
    for i in range(3):
        shards |= {name: f"diffusion_pytorch_model-{i + 1:05}-of-00003.safetensors" for name in names[i::3]}
    for file in set(shards.values()):
        save_file({name: tensors[name] for name in names if shards[name] == file}, folder / file)
    index = {"metadata": {}, "weight_map": shards}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("inside_a_pipeline", [False, True])
@pytest.mark.parametrize("sharded", [False, True])
def test_diffusers_folders_are_loaded(
    transformer: SanaWM, tmp_path: Path, sharded: bool, inside_a_pipeline: bool
) -> None:
    folder = tmp_path / "transformer" if inside_a_pipeline else tmp_path
    folder.mkdir(exist_ok=True)
    if sharded:
        save_shards(released(transformer), folder)
    else:
        save_file(released(transformer), folder / "diffusion_pytorch_model.safetensors")
    loaded = SanaWM(CFG)
    load_released(loaded, tmp_path)
    for name, tensor in transformer.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_the_ignored_keys_are_listed_one_by_one(transformer: SanaWM) -> None:
    assert ignored_keys(CFG) == original(transformer).keys() - {
        name.replace("linear_1", "mlp.0").replace("linear_2", "mlp.2") for name in transformer.state_dict()
    }
    for name in ("blocks.0.attn.A_log", "blocks.4.attn.recall_gate", "blocks.3.attn.proj.bias"):
        assert name not in ignored_keys(CFG)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("blocks.2.attn.A_log"), "missing: blocks.2.attn.A_log; unexpected: none"),
        (lambda t: t.update({"blocks.2.attn.B_log": torch.zeros(2)}), "missing: none; unexpected: blocks.2.attn.B_log"),
        (
            lambda t: t.update({"blocks.4.attn.recall_gate": torch.zeros(1)}),
            "missing: none; unexpected: blocks.4.attn.recall_gate",
        ),
        (
            lambda t: t.update({"final_layer.linear.bias": torch.zeros(5)}),
            r"wrong shapes: final_layer.linear.bias: expected \(4,\), got \(5,\)",
        ),
        (
            lambda t: t.update(
                {"t_embedder.linear_1.bias": torch.zeros(16), "model.t_embedder.linear_1.bias": torch.ones(16)}
            ),
            "expected one tensor a name, got two for t_embedder.linear_1.bias",
        ),
    ],
)
def test_released_weights_that_do_not_fit_are_refused(
    transformer: SanaWM, tmp_path: Path, change: Callable, message: str
) -> None:
    tensors = released(transformer)
    change(tensors)
    save_file(tensors, tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match=f"weights.safetensors: .*{message}"):
        load_released(SanaWM(CFG), tmp_path / "weights.safetensors")


def test_a_long_list_of_keys_is_cut_short(transformer: SanaWM, tmp_path: Path) -> None:
    save_file(
        {name: t for name, t in released(transformer).items() if "blocks.1." not in name}, tmp_path / "w.safetensors"
    )
    with pytest.raises(CheckpointError, match=r"missing: blocks.1.attn.A_log, .*, and \d+ more; unexpected: none"):
        load_released(SanaWM(CFG), tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3, "critic": {"a": torch.zeros(1)}}, "one of generator, .*state_dict .* got epoch, critic"),
        ({"generator": {"a": 1}}, "one of generator, .* got generator"),
        ({"generator": {}}, "one of generator, .* got generator"),
        ([torch.zeros(1)], "expected a dictionary, got list"),
        ({"state_dict": {"a": torch.zeros(1)}}, "missing: .* unexpected: a"),
    ],
)
def test_a_checkpoint_without_a_generator_is_refused(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=f"model.pt: .*{message}"):
        load_released(SanaWM(CFG), tmp_path / "model.pt")


@pytest.mark.parametrize("name", ["weights.safetensors", "model.pt", "model.pth"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_release_is_refused(transformer: SanaWM, tmp_path: Path, name: str, share: float) -> None:
    file = tmp_path / name
    if file.suffix == ".safetensors":
        save_file(released(transformer), file)
    else:
        torch.save({"generator": original(transformer)}, file)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=f"{name}: expected a whole .*, got"):
        load_released(SanaWM(CFG), file)


def test_what_is_not_there_is_refused(transformer: SanaWM, tmp_path: Path) -> None:
    for name in ("none.safetensors", "none.pt"):
        with pytest.raises(CheckpointError, match=f"{name}: expected a whole"):
            load_released(transformer, tmp_path / name)
    with pytest.raises(CheckpointError, match="expected one safetensors file or an index of shards, got none"):
        load_released(transformer, tmp_path)


def test_a_folder_with_a_shard_too_few_is_refused(transformer: SanaWM, tmp_path: Path) -> None:
    save_shards(released(transformer), tmp_path)
    shard = tmp_path / "diffusion_pytorch_model-00002-of-00003.safetensors"
    tensors = load_file(shard)
    shard.unlink()
    with pytest.raises(CheckpointError, match=r"00002-of-00003.safetensors: expected a whole safetensors file"):
        load_released(transformer, tmp_path)
    lost = sorted(tensors)[0]
    save_file({name: t for name, t in tensors.items() if name != lost}, shard)
    with pytest.raises(CheckpointError, match=f"index.json: .* missing: {lost}; unexpected: none"):
        load_released(transformer, tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors.index.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"index.json: expected JSON with a weight_map"):
        load_released(transformer, tmp_path)


# ---- conversion -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "dtype"), [("diffusers", "float32"), ("original", "float16"), *((name, "bfloat16") for name in LAYOUTS)]
)
def test_converting_leaves_the_served_weights(
    transformer: SanaWM, tmp_path: Path, layout: str, dtype: str, capsys: pytest.CaptureFixture
) -> None:
    source, target = save_as(layout, transformer, tmp_path), tmp_path / "out" / "transformer.safetensors"
    main(["convert", str(source), str(target), "--dtype", dtype])
    assert "100%" in capsys.readouterr().err
    got, expected = load_file(target), released(transformer)
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(got[name], tensor.to(getattr(torch, dtype))), name
    assert [file.name for file in target.parent.iterdir()] == [target.name]
    load_released(SanaWM(CFG), target)


def test_a_converted_file_is_one_that_diffusers_takes(
    randomise: Callable[..., torch.nn.Module], tmp_path: Path
) -> None:
    diffusers = pytest.importorskip("diffusers", "0.42.1", "diffusers 0.42.1 is not installed (extra `test`)")
    sizes = {"num_layers": 4, "hidden_size": 16, "num_attention_heads": 2, "linear_head_dim": 8}
    theirs = diffusers.SanaWMTransformer3DModel(in_channels=4, caption_channels=8, **sizes)
    randomise(theirs)
    torch.save({"generator": theirs.state_dict()}, tmp_path / "model.pt")
    convert(tmp_path / "model.pt", tmp_path / "new.safetensors", torch.float32)
    again = diffusers.SanaWMTransformer3DModel(in_channels=4, caption_channels=8, **sizes)
    again.load_state_dict(load_file(tmp_path / "new.safetensors"), strict=True)
    assert all(
        torch.equal(a, b) for a, b in zip(again.state_dict().values(), theirs.state_dict().values(), strict=True)
    )


def test_bfloat16_is_the_default(transformer: SanaWM, tmp_path: Path) -> None:
    source = save_as("pt, generator", transformer, tmp_path)
    convert(source, tmp_path / "half.safetensors")
    assert {t.dtype for t in load_file(tmp_path / "half.safetensors").values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("blocks.1.mlp.t_conv.weight"), "missing: blocks.1.mlp.t_conv.weight; unexpected: none"),
        (lambda t: t.update(surprise=torch.zeros(1)), "missing: none; unexpected: surprise"),
        (lambda t: [t.pop(n) for n in list(t) if "blocks" in n], "expected the keys of a SANA-WM transformer, got"),
    ],
)
def test_nothing_is_converted_that_would_not_load(
    transformer: SanaWM, tmp_path: Path, capsys: pytest.CaptureFixture, change: Callable, message: str
) -> None:
    tensors = original(transformer)
    change(tensors)
    torch.save({"generator": tensors}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=f"model.pt: .*{message}"):
        convert(tmp_path / "model.pt", tmp_path / "new.safetensors")
    with pytest.raises(SystemExit) as stopped:
        main(["convert", str(tmp_path / "model.pt"), str(tmp_path / "new.safetensors")])
    assert stopped.value.code == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt"]


CONVERT_AND_MEASURE = """
import resource, sys, torch
from world_model import released
released.REMAP_BYTES = 8 << 20
released.convert(sys.argv[1], sys.argv[2])  # a first, small one: imports and buffers are not what is measured
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
released.convert(sys.argv[3], sys.argv[2])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
@pytest.mark.parametrize("kind", ["pt, generator", "diffusers"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, kind: str) -> None:
    small = save_as(kind, SanaWM(CFG), tmp_path)
    small = small.rename(small.with_stem("small"))
    model = SanaWM(dataclasses.replace(CFG, heads=3, head_dim=112))
    weights = sum(4 * p.numel() for p in model.parameters())
    large = save_as(kind, model, tmp_path)
    assert large.stat().st_size > (3 if "pt" in kind else 1) * weights > 40 << 20
    command = [sys.executable, "-c", CONVERT_AND_MEASURE, str(small), str(tmp_path / "out.safetensors"), str(large)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    grown = int(done.stdout.split()[-1])
    assert grown < weights / 2, f"{grown >> 20} MiB for a file of {large.stat().st_size >> 20} MiB"
