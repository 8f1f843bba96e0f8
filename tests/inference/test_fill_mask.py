"""Filled masks, with a model whose predictions are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from xlm_plugins.config.model import ModelOptions
from xlm_plugins.core.errors import OptionError
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.inference.fill_mask import MaskFiller, fill_mask
from xlm_plugins.model.bundle import Bundle
from xlm_plugins.model.description import ModelDescription
from xlm_plugins.runs.find import find_bundle
from xlm_plugins.testing.words import WordTokenizer

WORDS = ("a", "b", "c", "d", "e", "f")
N_TOKENS = 6 + len(WORDS)
FIRST = 6  # the special ids come first
GUESSES = {*WORDS}
ANSWERS = ("", "b", "c", "d", "e", "f", "a", "")


@pytest.fixture
def bundle() -> Bundle:
    """Tokens and positions are unit vectors and the layers add nothing, so that at position p
    the model predicts ``ANSWERS[p]``, whatever token is there."""
    options = ModelOptions(dim=N_TOKENS, n_layers=1, n_heads=1, max_positions=8)
    languages = {"en": 0, "fr": 1}
    tokenizer = WordTokenizer(WORDS)
    description = ModelDescription(options, tokenizer.vocabulary(), languages, ("encoder",))
    model = description.build_model({}).eval()
    encoder = model.encoder
    with torch.no_grad():
        for parameter in encoder.layers.parameters():
            parameter.zero_()
        for norm in (encoder.layers[0].attention_norm, encoder.layers[0].feed_forward_norm):
            norm.weight.fill_(1)
        encoder.embeddings.languages.weight.zero_()
        encoder.embeddings.tokens.weight.copy_(torch.eye(N_TOKENS))
        encoder.embeddings.positions.weight.zero_()
        for position, word in enumerate(ANSWERS):
            if word:
                answer = FIRST + WORDS.index(word)
                encoder.embeddings.positions.weight[position, answer] = 3
    return Bundle(description, model, tokenizer, {}, Path())


def _first_guesses(bundle: Bundle, text: str) -> list[str]:
    return [fillings[0].token for fillings in fill_mask(bundle, text, "en", top=1)]


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        ("<mask> d d", ["b"]),
        ("d <mask> d", ["c"]),
        ("d d <mask>", ["d"]),
        ("<mask>", ["b"]),
        ("<mask> d <mask>", ["b", "d"]),
        ("d <mask> <mask> d <mask>", ["c", "d", "f"]),
    ],
)
def test_each_mask_is_filled_at_its_own_position(
    bundle: Bundle, text: str, answers: list[str]
) -> None:
    assert _first_guesses(bundle, text) == answers


def test_candidates_are_sorted_by_probability_and_filled_in(bundle: Bundle) -> None:
    (fillings,) = fill_mask(bundle, "a <mask> e", "en", top=len(GUESSES))
    assert fillings[0].text == "a c e"
    assert {filling.token for filling in fillings} == GUESSES
    probabilities = [filling.probability for filling in fillings]
    assert probabilities == sorted(probabilities, reverse=True)
    # Special tokens are no guesses, so these share all of the probability.
    assert sum(probabilities) == pytest.approx(1.0, abs=1e-6)


def test_probabilities_are_the_softmax_over_ordinary_tokens(bundle: Bundle) -> None:
    """If all scores but one bias are equal, the result can be computed by hand."""
    with torch.no_grad():
        bundle.model.encoder.embeddings.tokens.weight.zero_()
        bundle.model.encoder.output.bias.zero_()
        bundle.model.encoder.output.bias[FIRST + 4] = np.log(10)
        bundle.model.encoder.output.bias[[0, 3]] = 100  # special tokens, UNK is one
    (fillings,) = fill_mask(bundle, "a <mask>", "en", top=2)
    assert fillings[0].token == "e"
    assert fillings[0].probability == pytest.approx(10 / (10 + len(GUESSES) - 1), rel=1e-5)


def test_asking_for_too_many_candidates_returns_all_words(bundle: Bundle) -> None:
    (fillings,) = fill_mask(bundle, "<mask>", "en", top=1000)
    assert fillings[0].token == "b"
    assert {filling.token for filling in fillings} == GUESSES


def test_a_text_without_a_mask_is_refused(bundle: Bundle) -> None:
    with pytest.raises(OptionError, match="has no <mask>") as error:
        fill_mask(bundle, "a b", "en")
    assert "hint" not in str(error.value)


@pytest.mark.parametrize("mark", ["[MASK]", "<special1>", "____"])
def test_another_models_mask_suggests_the_right_one(bundle: Bundle, mark: str) -> None:
    with pytest.raises(OptionError) as error:
        fill_mask(bundle, f"a {mark} b", "en")
    assert error.value.remedy == f"<mask> in place of {mark}: 'a <mask> b'"


def test_a_text_beyond_the_models_positions_is_refused(bundle: Bundle) -> None:
    assert len(_first_guesses(bundle, "a b c d e <mask>")) == 1
    with pytest.raises(OptionError, match=r"7 tokens\n.*at most 6"):
        fill_mask(bundle, "a b c d e f <mask>", "en")


def test_the_language_changes_the_answer(bundle: Bundle) -> None:
    with torch.no_grad():
        bundle.model.encoder.embeddings.languages.weight[1, FIRST + 5] = 9
    assert _first_guesses(bundle, "a <mask>") == ["c"]
    assert fill_mask(bundle, "a <mask>", "fr", top=1)[0][0].token == "f"


def test_batching_changes_nothing(bundle: Bundle) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in bundle.model.parameters():
            parameter.normal_()
    texts = ["a <mask>", "<mask>", "a b <mask> d <mask>", "<mask> <mask>", "c <mask> a b", "<mask>"]
    counts: list[int] = []
    for batch_tokens in (1, 12, 1000):
        filler = MaskFiller(bundle, "fr", top=3, batch_tokens=batch_tokens)
        counts.clear()
        found = filler.fill(texts, counts.append)
        assert sum(counts) == len(texts)
        assert len(counts) == {1: 6, 12: 3, 1000: 1}[batch_tokens]
        for text, masks in zip(texts, found, strict=True):
            alone = fill_mask(bundle, text, "fr", top=3)
            assert len(masks) == text.count("<mask>")
            assert [[f.text for f in fillings] for fillings in masks] == [
                [f.text for f in fillings] for fillings in alone
            ]
            shares = [[[f.probability for f in m] for m in of] for of in (masks, alone)]
            np.testing.assert_allclose(*shares, rtol=1e-4)
    assert filler.fill([]) == []


def test_scores_of_many_masks_are_computed_in_chunks(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["d <mask> <mask> d <mask>"] * 3
    expected = MaskFiller(bundle, "en").fill(texts)
    monkeypatch.setattr("xlm_plugins.inference.fill_mask.rows_per_chunk", lambda *_: 2)
    assert MaskFiller(bundle, "en").fill(texts) == expected


@pytest.fixture(scope="module")
def trained(tiny_run: Path) -> Bundle:
    return Bundle.load(find_bundle(str(tiny_run)), Plugins.discover())


@pytest.mark.parametrize(
    "text", ["Jesus said to the, Follow me.", "to the people", "the people", "for the.", "the"]
)
def test_text_around_a_mask_encodes_as_it_does_around_a_word(
    trained: Bundle, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """SentencePiece marks the beginning of a line; text after a mask is not one."""
    tokenizer = trained.tokenizer
    word, mask = tokenizer.tokens().index("▁the"), tokenizer.special("mask")
    row = tokenizer.encode_batch([text]).rows[0].tolist()
    assert word in row
    seen = []
    stack = type(trained.model.encoder)
    forward = stack.forward

    def watched(self: Any, batch: Any, **options: Any) -> Any:
        seen.append(batch.tokens.tolist())
        return forward(self, batch, **options)

    monkeypatch.setattr(stack, "forward", watched)
    (fillings,) = fill_mask(trained, text.replace("the", "<mask>", 1), "en")
    eos = tokenizer.special("eos")
    assert seen == [[eos, *(mask if token == word else token for token in row), eos]]
    assert len(fillings) == 5
