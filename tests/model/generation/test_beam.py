"""Beam search against plain references: all sequences of a tiny vocabulary, and Python lists."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from xlm_plugins.config.model import GenerationOptions
from xlm_plugins.model.generation.beam import Beam

EOS, SIZE = 1, 5
BEGIN, FORBIDDEN = 2, 0  # a sentence may begin with any token; id 0 is never allowed
WORDS = tuple(range(2, SIZE))
Row = tuple[int, ...]
Found = tuple[float, Row]


class Language:
    """Fixed log-probabilities of the next token given all tokens so far, drawn for each prefix."""

    def __init__(self, seed: int, end: float = 0.0) -> None:
        self._seed = seed
        self._end = end

    def next(self, row: Row) -> list[float]:
        """Log-probabilities of all ids; -inf for the forbidden one.

        :param row: the token that the sentence begins with, and those after it.
        """
        scores = np.random.default_rng((self._seed, *row)).normal(size=SIZE)
        scores[EOS] += self._end
        scores[FORBIDDEN] = -np.inf
        return list((scores - np.logaddexp.reduce(scores)).tolist())


def searched(
    languages: list[Language], limits: list[int], options: GenerationOptions, drop: bool = False
) -> list[list[Found]]:
    """What `Beam` finds for a pool of sentences, best first: scores and words.

    :param drop: whether sentences leave the search once they are done.
    """
    begin = torch.full((len(limits),), BEGIN)
    beam = Beam(options, begin, torch.tensor(limits), EOS)
    left, found = list(range(len(limits))), {}
    for _ in range(1, max(limits)):
        rows = beam.tokens[:, :, : beam.length].tolist()
        scores = [
            languages[n].next(tuple(row)) for n, of in zip(left, rows, strict=True) for row in of
        ]
        beam.advance(torch.tensor(scores))
        found |= {n: _hypotheses(beam, place) for place, n in enumerate(left)}
        if drop and bool(beam.done.any()):
            still = (~beam.done).nonzero()[:, 0]
            left = [left[place] for place in still.tolist()]
            beam.keep_sentences(still)
        if not left:
            break
    return [found[n] for n in range(len(limits))]


def _hypotheses(beam: Beam, sentence: int) -> list[Found]:
    finished = beam.finished
    rows = zip(
        finished.scores[sentence].tolist(),
        finished.tokens[sentence].tolist(),
        finished.lengths[sentence].tolist(),
        strict=True,
    )
    return [(score, tuple(row[1:length])) for score, row, length in rows if score > -math.inf]


def every_hypothesis(language: Language, limit: int, penalty: float) -> Iterator[Found]:
    """All sequences that can be generated: ended by EOS, or closed at the limit.

    At the limit a sequence is closed without its last token, whose log-probability counts.
    """
    for n_words in range(limit - 1):
        for words in itertools.product(WORDS, repeat=n_words):
            row = (BEGIN, *words)
            total = sum(language.next(row[:n])[row[n]] for n in range(1, len(row)))
            last = (EOS, *WORDS) if len(row) + 1 == limit else (EOS,)
            for token in last:
                yield (total + language.next(row)[token]) / len(row) ** penalty, words


def plain_beam_search(language: Language, limit: int, options: GenerationOptions) -> list[Found]:
    """Beam search for one sentence, with lists of tuples."""
    penalty, width = options.length_penalty, options.beam
    alive: list[Found] = [(0.0, (BEGIN,))]
    finished: list[Found] = []
    for length in range(1, limit):
        continued = [
            (total + log_prob, (*row, token))
            for total, row in alive
            for token, log_prob in enumerate(language.next(row))
            if log_prob > -math.inf
        ]
        continued = sorted(continued, reverse=True)[: 2 * width]
        is_full = len(finished) == width
        reachable = continued[0][0] / limit**penalty
        if is_full and (options.early_stopping or finished[-1][0] >= reachable):
            break
        alive = []
        for total, row in continued:
            if length + 1 == limit or (row[-1] == EOS and len(alive) < width):
                finished.append((total / length**penalty, row[1:-1]))
            elif row[-1] != EOS:
                alive.append((total, row))
        alive = alive[:width]
        finished = sorted(finished, reverse=True)[:width]
    return finished


def assert_same(found: list[Found], expected: list[Found]) -> None:
    assert [words for _, words in found] == [words for _, words in expected]
    scores, wanted = ([score for score, _ in one] for one in (found, expected))
    assert scores == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
def test_a_beam_that_holds_every_sequence_finds_the_best_of_all(penalty: float) -> None:
    limits, languages = [2, 3, 4, 5], [Language(seed) for seed in range(4)]
    options = GenerationOptions(beam=3**4, length_penalty=penalty)
    for language, limit, found in zip(
        languages, limits, searched(languages, limits, options), strict=True
    ):
        every = sorted(every_hypothesis(language, limit, penalty), reverse=True)[: options.beam]
        assert len(every) > 3
        assert_same(found, every)


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0, 1.8])
@pytest.mark.parametrize("width", [1, 2, 3])
def test_a_narrow_beam_is_a_plain_search_of_each_sentence(
    width: int, penalty: float, early_stopping: bool
) -> None:
    options = GenerationOptions(beam=width, length_penalty=penalty, early_stopping=early_stopping)
    limits = [2, 9, 5, 7, 3, 9, 6, 8]
    languages = [Language(seed, end) for seed, end in enumerate([0, -1, 1, 0, 2, -3, 0.5, 1.5])]
    for drop in (False, True):
        found = searched(languages, limits, options, drop)
        for language, limit, of_sentence in zip(languages, limits, found, strict=True):
            assert_same(of_sentence, plain_beam_search(language, limit, options))


def test_stopping_early_and_late_differ_and_a_wide_beam_does_better() -> None:
    """Else the tests above would not show that options have an effect."""
    limits, languages = [9] * 20, [Language(seed) for seed in range(20)]

    def best(**options: object) -> list[float]:
        found = searched(languages, limits, GenerationOptions(length_penalty=1.5, **options))
        return [hypotheses[0][0] for hypotheses in found]

    late, early, greedy = best(beam=3), best(beam=3, early_stopping=True), best(beam=1)
    assert all(one >= other - 1e-6 for one, other in zip(late, early, strict=True))
    assert late != pytest.approx(early)
    assert sum(late) > sum(greedy)


def test_rows_extend_the_parents_that_are_returned() -> None:
    options = GenerationOptions(beam=3)
    beam = Beam(options, torch.tensor([BEGIN]), torch.tensor([9]), EOS)
    language = Language(7)
    for _ in range(5):
        before = beam.tokens[0, :, : beam.length]
        scores = [language.next(tuple(row)) for row in before.tolist()]
        parents = beam.advance(torch.tensor(scores))
        torch.testing.assert_close(beam.tokens[0, :, : beam.length - 1], before[parents[0]])
        torch.testing.assert_close(beam.last, beam.tokens[0, :, beam.length - 1])
