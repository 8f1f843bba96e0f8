"""Metrics of generated text."""

from __future__ import annotations

import pytest

from xlm_plugins.data.prepare.embedded import embedded_sentences
from xlm_plugins.training.pretraining.text_metrics import (
    LanguageGuesser,
    bleu_tokenizer,
    collapse_measures,
    score,
)


@pytest.fixture(scope="module")
def guesser() -> LanguageGuesser:
    texts = {code: embedded_sentences("valid", code) for code in ("en", "fr", "de")}
    return LanguageGuesser.of(texts)


def test_scores_are_sacrebleus_with_its_signature() -> None:
    text = ["In the beginning God created the heavens and the earth.", "And it was so."]
    same = score(text, text, "en")
    assert (same.bleu, same.chrf) == (pytest.approx(100), pytest.approx(100))
    assert "tok:13a" in same.signatures["bleu"]
    assert "nc:6" in same.signatures["chrf"]
    other = score(["In the beginning God made heaven and earth.", "And it was so."], text, "en")
    assert 0 < other.bleu < other.chrf < 100


@pytest.mark.parametrize(
    ("language", "tokenizer"),
    [("en", "13a"), ("zh", "zh"), ("zh_Hans", "zh"), ("th", "char"), ("sr_Latn", "13a")],
)
def test_the_language_determines_the_tokenizer(language: str, tokenizer: str) -> None:
    assert bleu_tokenizer(language) == tokenizer


def test_chinese_is_compared_by_characters_and_japanese_without_spaces_too() -> None:
    for language in ("zh", "ja"):
        found = score(["起初神創造天地。"], ["起初神創造天和地。"], language)
        assert 20 < found.bleu < 100  # as one long word it would be 0
        assert "tok:13a" not in found.signatures["bleu"]


def test_languages_are_identified_by_character_n_grams(guesser: LanguageGuesser) -> None:
    for code in ("en", "fr", "de"):
        guesses = [guesser.guess(text) for text in embedded_sentences("test", code)]
        assert guesses.count(code) > 0.98 * len(guesses)


def test_signs_of_a_collapse_are_counted(guesser: LanguageGuesser) -> None:
    sources = ["Dieu est grand.", "Il dit.", "Il vint.", "La terre.", "Le roi.", "Le roi."]
    outputs = [
        "God is great and his mercy endures.",
        "Il dit.",  # a copy, and in French
        "",
        "the land of the land of the land",
        "and and and the king of the city",
        "Et le roi parla au peuple dans la ville.",
    ]
    assert collapse_measures(sources, outputs, "en", guesser) == {
        "copies": pytest.approx(100 / 6),
        "empty": pytest.approx(100 / 6),
        "repeats": pytest.approx(200 / 6),
        "other_language": pytest.approx(200 / 6),
    }
