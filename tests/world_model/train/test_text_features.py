"""Text features made beforehand: read as they were kept, and made as the released weights want them."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests.world_model.train.test_zip_latents import describe
from tests.world_model.train.test_zip_latents import root as root  # the fixture
from world_model.config import TextConfig
from world_model.errors import BackendError, CheckpointError, InputError
from world_model.train.__main__ import main
from world_model.train.data.encode_text import TextRun, chosen, read, train
from world_model.train.data.text_features import TextFeatures

CFG = TextConfig(kind="gemma2", max_words=4, channels=6)


def test_captions_of_a_batch_are_padded_and_masked(tmp_path: Path) -> None:
    kept = {"a street": torch.randn(3, 6).bfloat16(), "": torch.randn(1, 6).bfloat16(), "é\n": torch.randn(4, 6)}
    save_file(dict(list(kept.items())[:2]), tmp_path / "one.safetensors")
    save_file(dict(list(kept.items())[2:]), tmp_path / "two.safetensors")
    text = TextFeatures(CFG, tmp_path)
    features, mask = text.tokenize(["", "a street"])
    assert text(features) is features
    assert mask.tolist() == [[True, False, False], [True] * 3]
    assert torch.equal(features[1], kept["a street"])
    assert torch.equal(features[0], nn.functional.pad(kept[""], (0, 0, 0, 2)))
    assert torch.equal(text.tokenize(["é\n"])[0][0], kept["é\n"])
    assert list(text.state_dict()) == []


def test_what_is_missing_or_misshapen_is_named(tmp_path: Path) -> None:
    path = tmp_path / "text.safetensors"
    save_file({"long": torch.randn(5, 6), "narrow": torch.randn(2, 5), "flat": torch.randn(6)}, path)
    text = TextFeatures(CFG, path)
    with pytest.raises(InputError, match=r"got 3 captions without 'b', 'c', 'd', and 1 more"):
        text.require(["long", "b", "c", "d", "e"])
    for caption, shape in (("long", r"\(5, 6\)"), ("narrow", r"\(2, 5\)"), ("flat", r"\(6,\)")):
        with pytest.raises(InputError, match=rf"'{caption}': expected features \(1 to 4, 6\), got {shape}"):
            text.tokenize([caption])
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="a safetensors file or a folder of them, found none"):
        TextFeatures(CFG, tmp_path / "empty")
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="expected whole safetensors files"):
        TextFeatures(CFG, path)


def test_rows_are_those_of_the_padded_sequence_that_the_weights_saw() -> None:
    """The start token and the last 299 places of instructions and caption, padded on the right to this many."""
    for before, words in ((40, 12), (40, 299), (40, 400), (7, 0)):
        instructions, whole = list(range(before)), list(range(before + words))
        length = before + 300 - 2
        padded = (whole + [-1] * length)[:length]
        expected = [padded[0], *padded[-299:]]
        tokens, kept = chosen(instructions, whole)
        assert [tokens[i] for i in kept] == [token for token in expected if token >= 0]
    assert chosen([0], list(range(500)))[1] == list(range(300))  # without instructions: the first 300
    assert chosen([0], [0]) == ([0], [0])


def test_without_transformers_the_extra_is_named(tmp_path: Path) -> None:
    if not _has_transformers():
        with pytest.raises(BackendError, match=r"expected transformers \(pip install \"sanawm-env\[sana\]\"\)"):
            train(TextRun(encoder="x", data=("y",), out="z.safetensors"))
    with pytest.raises(InputError, match=r"expected data and a .safetensors file as out, got .* 'z.bin'"):
        TextRun(encoder="x", data=("y",), out="z.bin")


def _has_transformers() -> bool:
    try:
        import transformers  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """A Gemma-2 with next to no weights, on disk as the real one is."""
    transformers = pytest.importorskip("transformers", reason="extra sana")
    tokenizers = pytest.importorskip("tokenizers", reason="extra sana")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "head_dim": 8, "vocab_size": 12}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "sliding_window": 8, "attn_logit_softcapping": 0.1}
    config = transformers.Gemma2Config(**sizes, **heads, bos_token_id=1, initializer_range=1.0)
    transformers.Gemma2ForCausalLM(config).save_pretrained(tmp_path / "encoder")
    words = ("<pad>", "<bos>", "<unk>", "street", "a", "b", "c", "d", "User", "Prompt:", "be", "brief.")
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 1)]
    )
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", pad_token="<pad>")
    fast.save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def test_features_are_gemmas_last_hidden_states_of_the_padded_prompt(root: Path, tmp_path: Path, encoder: Path) -> None:
    import transformers

    before = "be brief.\nUser Prompt: "
    (tmp_path / "instructions.txt").write_text(before + "\n")
    config = {
        "encoder": str(encoder),
        "data": [str(describe(root))],
        "out": str(tmp_path / "out" / "text.safetensors"),
        "instructions": str(tmp_path / "instructions.txt"),
    }
    (tmp_path / "text.json").write_text(json.dumps(config))
    main(["text", "--config", str(tmp_path / "text.json")])
    kept = load_file(tmp_path / "out" / "text.safetensors")
    assert sorted(kept) == [f"street {key}" for key in "abcd"]

    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder, padding_side="right")
    model = transformers.Gemma2ForCausalLM.from_pretrained(
        encoder, dtype=torch.bfloat16, attn_implementation="eager"
    ).eval()
    length = len(tokenizer.encode(before)) + 300 - 2
    for caption, features in kept.items():
        padded = tokenizer(before + caption, padding="max_length", max_length=length, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**padded, output_hidden_states=True).hidden_states[-1][0]
        chosen_rows = [0, *range(length - 299, length)]
        real = padded["attention_mask"][0][chosen_rows].bool()
        assert features.dtype == torch.bfloat16
        torch.testing.assert_close(features, hidden[chosen_rows][real], rtol=0.05, atol=0.05)
    text = TextFeatures(TextConfig(kind="gemma2", max_words=300, channels=16), tmp_path / "out")
    assert text.tokenize(["street a"])[1].tolist() == [[True] * 4]  # start, the instructions' last, two words


def test_only_rows_that_are_kept_come_back() -> None:
    class Doubling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(2.0))

        def forward(self, input_ids: torch.Tensor, use_cache: bool):
            return type("Output", (), {"last_hidden_state": (self.weight * input_ids)[..., None]})

    assert read(Doubling(), [5, 6, 7], [0, 2]).tolist() == [[10], [14]]
