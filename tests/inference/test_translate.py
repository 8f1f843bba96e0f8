"""Translating text: order, empty lines, batches, and what a model cannot do."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from xlm_plugins.config.model import GenerationOptions, ModelOptions
from xlm_plugins.contracts.batch import Step
from xlm_plugins.contracts.objective import Objective
from xlm_plugins.core.errors import OptionError
from xlm_plugins.core.registry import Component
from xlm_plugins.inference.translate import (
    EMPTY,
    Translation,
    Translator,
    check_direction,
    directions,
)
from xlm_plugins.model.bundle import Bundle
from xlm_plugins.model.description import ChosenObjective, ModelDescription
from xlm_plugins.testing.words import WordTokenizer

WORDS = "abcdefghijkl"
LANGUAGES = {"de": 0, "en": 1, "fr": 2}
TEXTS = ["a b c", "", "l k j i h g f e d c b a", "a", "  ", "g g g g", "c d", "b", "h i j k l a"]


class Reading(Objective):
    """An objective that trains no translation."""

    n_languages = (1, 2)

    def layout(self, step: Step) -> Any: ...
    def make_batch(self, samples: Any, step: Step, rng: Any) -> Any: ...
    def loss(self, model: Any, batch: Any) -> Any: ...


class Translating(Reading):
    """Trains translation by its pairs; by a loop, the direction back and the round trip."""

    stacks = frozenset({"encoder", "decoder"})

    def translations(self, step: Step) -> tuple[Step, ...]:
        return (Step(step.languages[1:]), step) if len(step.languages) == 3 else (step,)


def made(trained: dict[type[Objective], Sequence[str]], **options: Any) -> Bundle:
    """A bundle with random weights, large enough that translations differ in length."""
    vocabulary = WordTokenizer(WORDS).vocabulary()
    chosen = {kind.__name__.lower(): (kind, tuple(steps)) for kind, steps in trained.items()}
    components = {name: Component(name, "", kind="objective") for name in chosen}
    description = ModelDescription(
        ModelOptions(dim=16, n_layers=2, n_heads=4, max_positions=options.get("positions", 32)),
        vocabulary,
        LANGUAGES,
        ("encoder", "decoder") if options.get("decoder", True) else ("encoder",),
        objectives=tuple(
            ChosenObjective(components[name], None, steps) for name, (_, steps) in chosen.items()
        ),
    )
    torch.manual_seed(4)
    model = description.build_model({}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.5 * torch.randn_like(parameter)
    objectives = {name: kind(None, vocabulary, LANGUAGES) for name, (kind, _) in chosen.items()}
    return Bundle(description, model, WordTokenizer(WORDS), objectives, Path("my-run"))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return made({Reading: ("en", "de-fr"), Translating: ("en-fr", "fr-en", "en-de-en")})


def translated(bundle: Bundle, texts: Sequence[str], **options: Any) -> list[list[Translation]]:
    own = {name: options.pop(name) for name in ("n_best", "batch_tokens") if name in options}
    translator = Translator(bundle, "en", "fr", GenerationOptions(**options), **own)
    return translator.translate(translator.encode(texts))


def texts_of(found: Sequence[Sequence[Translation]]) -> list[list[str]]:
    return [[translation.text for translation in translations] for translations in found]


def test_every_text_has_its_own_translation_in_order(bundle: Bundle) -> None:
    found = texts_of(translated(bundle, TEXTS))
    assert found == [texts_of(translated(bundle, [text]))[0] for text in TEXTS]
    assert len({text for (text,) in found}) > 4  # otherwise the order would not be tested
    assert found[1] == found[4] == [""]


@pytest.mark.parametrize("options", [{}, {"beam": 3, "n_best": 3}])
def test_batches_change_nothing(bundle: Bundle, options: dict[str, Any]) -> None:
    expected = translated(bundle, TEXTS, batch_tokens=10_000, **options)
    for batch_tokens in (1, 40, 100):
        found = translated(bundle, TEXTS, batch_tokens=batch_tokens, **options)
        assert texts_of(found) == texts_of(expected)
        scores, wanted = ([[t.score for t in row] for row in all_] for all_ in (found, expected))
        torch.testing.assert_close(torch.tensor(scores), torch.tensor(wanted))


def test_batches_stay_within_budget_and_hold_similar_lengths(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = []
    monkeypatch.setattr(
        Translator,
        "_translate_batch",
        lambda self, rows: batches.append(rows.lengths.tolist()) or [[EMPTY]] * rows.n_rows,
    )
    texts = ["a " * n for n in (1, 30, 2, 16, 0, 20, 99, 18, 30)]
    translated(bundle, texts, batch_tokens=60)
    assert batches == [[30, 99], [30, 20], [18, 16, 2], [1]]  # 99 is cut to the 30 of the model
    batches.clear()
    translated(bundle, texts, batch_tokens=60, beam=3)
    assert batches == [[n] for n in (30, 99, 30, 20, 18, 16, 2, 1)]


def test_progress_counts_every_text_once(bundle: Bundle) -> None:
    translator = Translator(bundle, "en", "fr", batch_tokens=40)
    counts: list[int] = []
    translator.translate(translator.encode(TEXTS), counts.append)
    assert sum(counts) == len(TEXTS)
    assert len(counts) > 3


def test_sentences_without_tokens_stay_empty_and_are_not_decoded(bundle: Bundle) -> None:
    assert translated(bundle, ["", " ", "?!"], beam=2, n_best=2) == [[EMPTY, EMPTY]] * 3
    assert translated(bundle, []) == []


def test_the_n_best_are_those_of_the_beam_sorted_by_score(bundle: Bundle) -> None:
    three = translated(bundle, TEXTS, beam=3, n_best=3)
    assert all(len(translations) == 3 for translations in three)
    for text, translations in zip(TEXTS, three, strict=True):
        scores = [translation.score for translation in translations]
        assert scores == sorted(scores, reverse=True)
        if text.strip():
            assert -torch.inf < scores[0] < 0
            assert len({translation.text for translation in translations}) > 1
    assert [row[:1] for row in three] == translated(bundle, TEXTS, beam=3)


def test_a_long_text_is_cut_to_the_models_positions(bundle: Bundle) -> None:
    translator = Translator(bundle, "en", "fr")
    assert translator.longest == 30
    cut = " ".join((WORDS * 3)[:30])
    assert translated(bundle, [f"{cut} a b c"]) == translated(bundle, [cut])


def test_a_translation_is_one_line(bundle: Bundle) -> None:
    class Broken(WordTokenizer):
        def decode_batch(self, rows: Sequence[Sequence[int]]) -> list[str]:
            return ["a\nb\r\nc"] * len(rows)

    broken = dataclasses.replace(bundle, tokenizer=Broken(WORDS))
    assert texts_of(translated(broken, ["a"])) == [["a b  c"]]


def test_samples_follow_torchs_seed(bundle: Bundle) -> None:
    def sampled(seed: int) -> list[list[str]]:
        torch.manual_seed(seed)
        return texts_of(translated(bundle, TEXTS, sample=True, temperature=2.0))

    assert sampled(1) == sampled(1) != sampled(2)


def test_directions_come_from_the_objectives_steps(bundle: Bundle) -> None:
    assert list(map(str, directions(bundle))) == ["en-fr", "fr-en", "de-en"]


@pytest.mark.parametrize(
    ("source", "target", "told"),
    [
        ("en", "xx", "does not know the language 'xx'\nexpected: one of de, en, fr"),
        ("xx", "en", "does not know the language 'xx'\nexpected: one of de, en, fr"),
        ("en", "en", "both languages are 'en'"),
        (
            "en",
            "de",
            "not trained to translate from en to de\n"
            "expected: a direction that it was trained for: "
            "from en to fr or from fr to en or from de to en\n"
            "hint: train it: xlm train --init my-run --objective mt:en-de --data DATA",
        ),
    ],
)
def test_a_direction_that_the_model_cannot_do(
    bundle: Bundle, source: str, target: str, told: str
) -> None:
    with pytest.raises(OptionError) as caught:
        check_direction(bundle, source, target)
    assert told in str(caught.value)


def test_a_model_that_was_only_pretrained_says_what_to_train() -> None:
    pretrained = made({Reading: ("en", "en-fr")}, decoder=False)
    with pytest.raises(OptionError) as caught:
        check_direction(pretrained, "en", "fr")
    assert str(caught.value) == (
        "the model has no decoder: it was trained with reading only\n"
        "hint: train it: xlm train --init my-run --objective mt:en-fr --data DATA"
    )


def test_a_decoder_alone_is_no_translator() -> None:
    denoising = made({Reading: ("en", "fr")})
    with pytest.raises(OptionError, match="not trained to translate, but with reading"):
        check_direction(denoising, "en", "fr")


def test_the_widest_beam_works_and_a_wider_one_is_refused(bundle: Bundle) -> None:
    largest = (len(WORDS) + 1) // 2  # words, and the unknown one
    found = translated(bundle, ["a b"], beam=largest, n_best=largest)
    assert all(translation.score > -torch.inf for translation in found[0])
    with pytest.raises(
        OptionError, match=rf"beam of {largest + 1} .*\nexpected: at most {largest}"
    ):
        translated(bundle, ["a"], beam=largest + 1)


def test_more_translations_than_the_beam_is_wide(bundle: Bundle) -> None:
    with pytest.raises(OptionError, match=r"beam of 2 does not find 3(.|\n)*--beam 3 or more"):
        translated(bundle, ["a"], beam=2, n_best=3)
