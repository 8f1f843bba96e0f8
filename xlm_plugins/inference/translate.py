"""Translating raw text: batched by length, translations in the order of the texts."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from xlm_plugins.config.model import GenerationOptions
from xlm_plugins.contracts.batch import Step
from xlm_plugins.contracts.ragged import Ragged
from xlm_plugins.core.errors import OptionError
from xlm_plugins.inference.common import (
    Advance,
    TextReader,
    batches_by_length,
    no_progress,
    one_line,
    trained_on,
)
from xlm_plugins.model.bundle import Bundle, TextModel
from xlm_plugins.model.generation.search import check_beam, generate

SHORTEST = 16
"""Shorter sentences count as this many tokens: each needs a full row of scores anyway."""


@dataclass(frozen=True)
class Translation:
    """One translation of a sentence.

    :param text: detokenized, on one line.
    :param score: sum of log-probabilities / length^penalty; 0 for an empty sentence.
    """

    text: str
    score: float


EMPTY = Translation("", 0.0)


def directions(bundle: Bundle) -> list[Step]:
    """The language pairs that the model was trained to translate, without duplicates."""
    found = [
        direction
        for chosen in bundle.description.objectives
        for step in chosen.steps
        for direction in bundle.objectives[chosen.component.name].translations(Step.parse(step))
        if len(direction.languages) == 2
    ]
    return list(dict.fromkeys(found))


class Translator(TextReader):
    """A model that translates from one language to another, whether trained to or not.

    :param options: how to search; greedy by default.
    :param n_best: translations per sentence, at most ``options.beam``.
    :param batch_tokens: source tokens times ``options.beam`` that are translated together: more
        is faster and takes more memory; `BATCH_TOKENS` if None.
    :raises OptionError: the beam is too wide for the vocabulary, or too narrow for ``n_best``.
    """

    def __init__(
        self,
        bundle: TextModel,
        source: str,
        target: str,
        options: GenerationOptions | None = None,
        *,
        n_best: int = 1,
        batch_tokens: int | None = None,
    ) -> None:
        super().__init__(bundle, source, batch_tokens)
        self._options = options or GenerationOptions()
        self._n_best = n_best
        check_beam(self._options, bundle.description.vocabulary)
        _check_number(self._options, n_best)
        self._target_tokenizer = bundle.tokenizer.in_language(target)
        self._target = bundle.description.languages[target]

    @torch.inference_mode()
    def translate(
        self, sentences: Ragged, advance: Advance = no_progress
    ) -> list[list[Translation]]:
        """Translate sentences; one without tokens stays empty.

        A translation does not depend on the other sentences, unless it is sampled: sampling draws
        from torch's current random state.

        :returns: ``n_best`` translations for each sentence, best first.
        """
        found = [[EMPTY] * self._n_best for _ in range(sentences.n_rows)]
        words = sentences.lengths.nonzero()[0]
        advance(sentences.n_rows - len(words))
        lengths = sentences.lengths[words].clip(max=self.longest)
        budget = self._batch_tokens // self._options.beam
        for batch in batches_by_length(lengths, budget, SHORTEST):
            which = words[batch]
            translated = self._translate_batch(sentences.take(which))
            for index, translations in zip(which.tolist(), translated, strict=True):
                found[index] = translations
            advance(len(which))
        return found

    def _translate_batch(self, sentences: Ragged) -> list[list[Translation]]:
        model, vocabulary = self._bundle.model, self._bundle.description.vocabulary
        found = generate(model, self._batch(sentences), self._target, vocabulary, self._options)
        by_rank = []
        for rank in range(self._n_best):
            texts = self._target_tokenizer.decode_batch(found.rows(rank))
            scores = found.scores[:, rank].tolist()
            by_rank.append(
                [
                    Translation(one_line(text), score)
                    for text, score in zip(texts, scores, strict=True)
                ]
            )
        return [list(translations) for translations in zip(*by_rank, strict=True)]


def check_direction(bundle: Bundle, source: str, target: str) -> None:
    """Refuse to translate between languages that the model was not trained to translate.

    :raises OptionError: lists what it was trained for.
    """
    known = bundle.description.languages
    for language in (source, target):
        if language not in known:
            raise OptionError(
                f"the model does not know the language {language!r}",
                expected=f"one of {', '.join(sorted(known))}",
            )
    if source == target:
        raise OptionError(
            f"both languages are {source!r}", expected="a source and a target that differ"
        )
    asked, trained = Step((source, target)), directions(bundle)
    if asked in trained:
        return
    objectives = trained_on(bundle)
    if bundle.model.decoder is None:
        problem = f"the model has no decoder: it was trained with {objectives} only"
    elif not trained:
        problem = f"the model was not trained to translate, but with {objectives}"
    else:
        problem = f"the model was not trained to translate from {source} to {target}"
    can = " or ".join("from {} to {}".format(*step.languages) for step in trained)
    raise OptionError(
        problem,
        expected=f"a direction that it was trained for: {can}" if can else "",
        remedy=f"train it: xlm train --init {bundle.path} --objective mt:{asked} --data DATA",
    )


def _check_number(options: GenerationOptions, n_best: int) -> None:
    if n_best > options.beam:
        raise OptionError(
            f"a beam of {options.beam} does not find {n_best} translations",
            expected=f"n-best up to {options.beam}",
            remedy=f"--beam {n_best} or more",
        )
