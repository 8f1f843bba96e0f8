"""Embeddings and filled masks, against a model whose every answer is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from xlm_plugins.core.errors import OptionError
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.model.bundle import Bundle
from xlm_plugins.model.config import ModelOptions
from xlm_plugins.model.description import ModelDescription
from xlm_plugins.model.inference import embed, fill_mask, language_id, sentence_batch
from xlm_plugins.testing.words import WordTokenizer
from xlm_plugins.training.run import find_bundle

WORDS = ("a", "b", "c", "d", "e", "f")
N_TOKENS = 6 + len(WORDS)
FIRST = 6  # the special ids come first
GUESSES = {*WORDS, "<unk>"}  # what text can encode to
ANSWERS = ("", "b", "c", "d", "e", "f", "a", "")


@pytest.fixture
def bundle() -> Bundle:
    """Tokens and positions are unit vectors and the layers add nothing, so that at position p
    the model says ``ANSWERS[p]``, whatever is there."""
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
    return Bundle(Path(), description, model, tokenizer, {})


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
def test_each_mask_is_filled_at_its_own_place(
    bundle: Bundle, text: str, answers: list[str]
) -> None:
    assert _first_guesses(bundle, text) == answers


def test_guesses_come_by_falling_probability_and_in_the_text(bundle: Bundle) -> None:
    (fillings,) = fill_mask(bundle, "a <mask> e", "en", top=len(GUESSES))
    assert fillings[0].text == "a c e"
    assert {filling.token for filling in fillings} == GUESSES
    probabilities = [filling.probability for filling in fillings]
    assert probabilities == sorted(probabilities, reverse=True)
    # Special tokens are no guesses, so these share all of the probability.
    assert sum(probabilities) == pytest.approx(1.0, abs=1e-6)


def test_probabilities_are_the_softmax_over_what_text_can_hold(bundle: Bundle) -> None:
    """With every score alike but one bias, the answer can be computed by hand."""
    with torch.no_grad():
        bundle.model.encoder.embeddings.tokens.weight.zero_()
        bundle.model.encoder.output.bias.zero_()
        bundle.model.encoder.output.bias[FIRST + 4] = np.log(10)
        bundle.model.encoder.output.bias[0] = 100  # a special token
    (fillings,) = fill_mask(bundle, "a <mask>", "en", top=2)
    assert fillings[0].token == "e"
    assert fillings[0].probability == pytest.approx(10 / (10 + len(GUESSES) - 1), rel=1e-5)


def test_more_guesses_than_words_are_all_words(bundle: Bundle) -> None:
    (fillings,) = fill_mask(bundle, "<mask>", "en", top=1000)
    assert fillings[0].token == "b"
    assert {filling.token for filling in fillings} == GUESSES


def test_a_text_without_a_mask_is_refused(bundle: Bundle) -> None:
    with pytest.raises(OptionError, match="has no <mask>"):
        fill_mask(bundle, "a [MASK] b", "en")


def test_a_text_beyond_the_models_positions_is_refused(bundle: Bundle) -> None:
    assert len(_first_guesses(bundle, "a b c d e <mask>")) == 1
    with pytest.raises(OptionError, match=r"7 tokens\n.*at most 6"):
        fill_mask(bundle, "a b c d e f <mask>", "en")


def test_the_language_must_be_one_that_the_model_knows(bundle: Bundle) -> None:
    assert language_id(bundle, "fr") == 1
    with pytest.raises(OptionError, match=r"'xx'\n.*en, fr"):
        language_id(bundle, "xx")
    with pytest.raises(OptionError, match=r"none was named\n.*en, fr"):
        language_id(bundle, None)
    one = replace(bundle, description=replace(bundle.description, languages={"en": 0}))
    assert language_id(one, None) == 0


def test_the_language_changes_the_answer(bundle: Bundle) -> None:
    with torch.no_grad():
        bundle.model.encoder.embeddings.languages.weight[1, FIRST + 5] = 9
    assert _first_guesses(bundle, "a <mask>") == ["c"]
    assert fill_mask(bundle, "a <mask>", "fr", top=1)[0][0].token == "f"


def test_an_embedding_is_the_mean_of_the_sentences_own_tokens(bundle: Bundle) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in bundle.model.parameters():
            parameter.normal_()
    texts = ["a b c", "f", "c c c c c", "e d"]
    found = embed(bundle, texts, "fr", batch_size=3)
    for text, vector in zip(texts, found, strict=True):
        batch = sentence_batch(bundle, bundle.tokenizer.encode_batch([text]), 1)
        states = bundle.model.encoder(batch)
        assert len(states) == len(text.split()) + 2
        np.testing.assert_allclose(vector, states[1:-1].mean(0).detach(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(embed(bundle, texts, "fr", batch_size=1), found, atol=1e-5)
    assert np.abs(embed(bundle, texts, "en") - found).max() > 0.1


def test_layer_0_is_the_embedding_layer(bundle: Bundle) -> None:
    (vector,) = embed(bundle, ["a d"], "en", layer=0)
    rows = torch.zeros(2, N_TOKENS)
    rows[0, FIRST + 0] = rows[1, FIRST + 3] = 1  # the words
    rows[0, FIRST + 1] = rows[1, FIRST + 2] = 3  # positions 1 and 2 say b and c
    expected = torch.nn.functional.layer_norm(rows, (N_TOKENS,)).mean(0)
    np.testing.assert_allclose(vector, expected, atol=1e-5)


def test_texts_without_tokens_and_too_many(bundle: Bundle) -> None:
    assert embed(bundle, [], "en").shape == (0, N_TOKENS)
    vectors = embed(bundle, ["", "a b c d e f", "a b c d e f a a a"], "en")
    assert np.isfinite(vectors).all()
    np.testing.assert_array_equal(vectors[1], vectors[2])  # cut to the model's positions


@pytest.fixture(scope="module")
def trained(tiny_run: Path) -> Bundle:
    return Bundle.load(find_bundle(str(tiny_run)), Plugins.discover())


@pytest.mark.parametrize(
    "text", ["Jesus said to the, Follow me.", "to the people", "the people", "for the.", "the"]
)
def test_text_around_a_mask_encodes_as_it_does_around_a_word(
    trained: Bundle, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """SentencePiece marks the beginning of a line; text behind a mask is none, before a comma."""
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
