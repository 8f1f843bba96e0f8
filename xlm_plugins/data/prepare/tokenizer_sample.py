"""The sample of text that a tokenizer learns from: limited in size, with small languages boosted.

Languages are weighted by size^alpha (XLM, arXiv 1901.07291, section 3.1, equation 1), so that a
large one does not take the whole vocabulary; within a language all sentences are equally likely.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xlm_plugins.core.errors import DataError
from xlm_plugins.data.dataset.manifest import TRAIN
from xlm_plugins.data.prepare.lines import TextCount, lines
from xlm_plugins.data.prepare.sources import Sources

MOST_SENTENCES = 1_000_000
# SentencePiece's unigram training takes about 22 bytes of memory per character (measured), and
# preparing must stay under 1 GB.
MOST_CHARACTERS = 25_000_000
ALPHA = 0.5
_SEED = 1
_FLAGS_AT_ONCE = 2**16


@dataclass(frozen=True)
class SampledText:
    """Files of one language, and how much of them is sampled.

    :param n_sentences: expected number of sentences in the sample.
    :param n_characters: expected number of characters in the sample.
    :param rate: probability that a sentence is sampled.
    """

    language: str
    files: tuple[Path, ...]
    n_sentences: int
    n_characters: int
    rate: float


def plan_sample(sources: Sources, counts: Mapping[str, TextCount]) -> list[SampledText]:
    """Decide how much to sample from which files, before anything is read.

    :param counts: by stream name.
    :raises DataError: there is no training text.
    """
    # Keyed by files, so that text which several streams share is sampled once.
    texts = {
        (language, files): (counts[stream.name].n_sentences, n_characters)
        for stream in sources.streams
        if stream.split == TRAIN
        for language, files, n_characters in zip(
            stream.languages, stream.files, counts[stream.name].n_characters, strict=True
        )
    }
    if not texts:
        raise DataError(
            f"{sources.origin} has no {TRAIN} text to learn a tokenizer from",
            expected="a stream such as train.en",
            remedy="use an existing tokenizer: --tokenizer-from PATH",
        )
    rates = _rates({key: n for key, (n, _) in texts.items()})
    expected = sum(rates[key[0]] * n_characters for key, (_, n_characters) in texts.items())
    scale = min(1.0, MOST_CHARACTERS / expected)
    plan = []
    for (language, files), (n_sentences, n_characters) in texts.items():
        rate = scale * rates[language]
        sampled = (round(rate * n_sentences), round(rate * n_characters))
        plan.append(SampledText(language, files, *sampled, rate))
    return plan


def _rates(n_sentences: Mapping[tuple[str, tuple[Path, ...]], int]) -> dict[str, float]:
    """The sampling rate of each language, by its weight and the limit of sentences."""
    totals: dict[str, int] = {}
    for (language, _), n in n_sentences.items():
        totals[language] = totals.get(language, 0) + n
    weight = {language: n**ALPHA for language, n in totals.items()}
    budget = min(MOST_SENTENCES, sum(totals.values())) / sum(weight.values())
    return {language: min(1.0, budget * weight[language] / n) for language, n in totals.items()}


def describe_sample(plan: Sequence[SampledText]) -> str:
    """The estimate to show before training: ``415,000 sentences, 40 MB (de 30 %, en 70 %)``."""
    n_characters = sum(text.n_characters for text in plan)
    by_language: dict[str, int] = {}
    for text in plan:
        by_language[text.language] = by_language.get(text.language, 0) + text.n_characters
    shares = ", ".join(
        f"{language} {n / n_characters:.0%}" for language, n in sorted(by_language.items())
    )
    n_sentences = sum(text.n_sentences for text in plan)
    return f"about {n_sentences:,} sentences, {n_characters / 1e6:,.1f} M characters ({shares})"


def sampled_texts(plan: Sequence[SampledText], errors: str) -> Iterator[str]:
    """Read the sample; the same plan yields the same sentences in the same order."""
    for number, text in enumerate(plan):
        rng = np.random.default_rng([_SEED, number])
        every_line = itertools.chain.from_iterable(lines(path, errors) for path in text.files)
        for line in itertools.compress(every_line, _flags(rng, text.rate)):
            if not line.isspace() and line:
                yield line


def _flags(rng: np.random.Generator, rate: float) -> Iterator[bool]:
    while True:
        yield from (rng.random(_FLAGS_AT_ONCE) < rate).tolist()
