"""The word encoder."""

import logging

import pytest
import torch

from world_model.config import TextConfig
from world_model.errors import InputError
from world_model.text import START, UNKNOWN, WordEncoder, vocabulary, words

CFG = TextConfig(vocabulary=("a", "cone", "red", "room"), max_words=3, channels=8)


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return WordEncoder(CFG)


def test_words_are_lower_case_without_punctuation():
    assert words("A Red room, (two doors)!") == ["a", "red", "room", "two", "doors"]


def test_tokens_and_mask(encoder):
    ids, mask = encoder.tokenize(["a RED room.", "cone", ""])
    assert ids.tolist() == [[START, 2, 4, 5], [START, 3, START, START], [START] * 4]
    assert mask.tolist() == [[True] * 4, [True, True, False, False], [True, False, False, False]]


def test_an_empty_prompt_encodes(encoder):
    ids, mask = encoder.tokenize([""])
    assert ids.tolist() == [[START]]
    assert mask.tolist() == [[True]]
    assert encoder(ids).shape == (1, 1, 8)


def test_used_slots_do_not_depend_on_the_batch(encoder):
    alone, _ = encoder.tokenize(["cone"])
    beside, _ = encoder.tokenize(["cone", "a red room"])
    torch.testing.assert_close(encoder(beside)[:1, :2], encoder(alone), rtol=0, atol=0)


def test_order_matters(encoder):
    ids, _ = encoder.tokenize(["red cone", "cone red"])
    assert not torch.equal(encoder(ids)[0, 1], encoder(ids)[1, 2])


def test_what_is_dropped_is_said(encoder, caplog):
    with caplog.at_level(logging.WARNING):
        ids, _ = encoder.tokenize(["a red room cone"])
    assert ids.shape == (1, 4)
    assert "4 words cut to 3" in caplog.text


def test_unknown_words_are_said(encoder, caplog):
    with caplog.at_level(logging.WARNING):
        ids, _ = encoder.tokenize(["a green room"])
    assert ids.tolist() == [[START, 2, UNKNOWN, 5]]
    assert "green" in caplog.text


def test_vocabulary_of_captions():
    assert vocabulary(["a red room", "A blue cone."]) == ("a", "blue", "cone", "red", "room")


@pytest.mark.parametrize("wrong", [("red", "red"), ("Red",), ("two doors",)])
def test_vocabularies_that_it_refuses(wrong):
    with pytest.raises(InputError, match="vocabulary: expected distinct lower-case words"):
        WordEncoder(TextConfig(vocabulary=wrong))


def test_too_many_slots_are_refused(encoder):
    with pytest.raises(InputError, match="at most 4 slots, got 5"):
        encoder(torch.zeros(1, 5, dtype=torch.long))
