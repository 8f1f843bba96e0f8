"""Metrics of generated text: BLEU and chrF by sacrebleu, and signs of a collapsed model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

NGRAM = 3
"""Order of the character n-grams that identify languages, and of the word n-grams that repeat."""

MEASURES = ("bleu", "chrf", "copies", "empty", "repeats", "other_language")


@dataclass(frozen=True)
class Scores:
    """BLEU and chrF (0 to 100) with the signatures that make them comparable."""

    bleu: float
    chrf: float
    signatures: dict[str, str]


def score(hypotheses: Sequence[str], references: Sequence[str], language: str) -> Scores:
    """Compare detokenized text with raw references (sacrebleu, arXiv 1804.08771).

    :param language: of the text; it determines BLEU's tokenizer.
    """
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    bleu, chrf = BLEU(tokenize=bleu_tokenizer(language)), CHRF()
    bleu_score = bleu.corpus_score(list(hypotheses), [list(references)]).score
    chrf_score = chrf.corpus_score(list(hypotheses), [list(references)]).score
    signatures = {"bleu": str(bleu.get_signature()), "chrf": str(chrf.get_signature())}
    return Scores(bleu_score, chrf_score, signatures)


def bleu_tokenizer(language: str) -> str:
    """sacrebleu's tokenizer for a language; the signature names it.

    Japanese and Korean need a dictionary, which sacrebleu has as an extra (``sacrebleu[ja]``,
    ``sacrebleu[ko]``); without it BLEU is over characters, as for Thai and similar languages.
    """
    code = language.split("_")[0].lower()
    if code in ("ja", "ko"):
        module = {"ja": "MeCab", "ko": "mecab_ko"}[code]
        return f"{code}-mecab" if find_spec(module) else "char"
    if code in ("th", "lo", "km", "my"):
        return "char"
    return "zh" if code in ("zh", "yue") else "13a"


@dataclass(frozen=True)
class LanguageGuesser:
    """Identifies languages by character n-grams: naive Bayes with equal priors.

    :param counts: n-gram counts in a sample of each language.
    """

    counts: Mapping[str, Counter[str]]

    @classmethod
    def of(cls, texts: Mapping[str, Iterable[str]]) -> LanguageGuesser:
        """Learn from a sample of each language."""
        return cls({code: Counter(_ngrams(text for text in own)) for code, own in texts.items()})

    def guess(self, text: str) -> str:
        """The most probable language of a text."""
        n_known = len(set().union(*self.counts.values()))
        ngrams = Counter(_ngrams([text]))

        def log_probability(code: str) -> float:
            counts = self.counts[code]
            total = counts.total() + n_known
            return sum(n * math.log((counts[ngram] + 1) / total) for ngram, n in ngrams.items())

        return max(self.counts, key=log_probability)


def collapse_measures(
    sources: Sequence[str], outputs: Sequence[str], language: str, guesser: LanguageGuesser
) -> dict[str, float]:
    """Percentages of outputs that show that a model does not translate.

    :param language: the one that the outputs should be in.
    :returns: ``copies`` of the source, ``empty`` outputs, ``repeats`` of three words in a row, and
        outputs in an ``other_language``.
    """
    pairs = list(zip(sources, outputs, strict=True))
    found = {
        "copies": [source.strip() == output.strip() != "" for source, output in pairs],
        "empty": [not output.strip() for output in outputs],
        "repeats": [_repeats(output) for output in outputs],
        "other_language": [
            bool(output.strip()) and guesser.guess(output) != language for output in outputs
        ],
    }
    return {name: 100 * sum(flags) / max(len(flags), 1) for name, flags in found.items()}


def _repeats(text: str) -> bool:
    """Whether three words are immediately repeated, or one word occurs three times in a row."""
    words = text.split()
    thrice = any(a == b == c for a, b, c in zip(words, words[1:], words[2:], strict=False))
    twice = any(
        words[i : i + NGRAM] == words[i + NGRAM : i + 2 * NGRAM]
        for i in range(len(words) - 2 * NGRAM + 1)
    )
    return thrice or twice


def _ngrams(texts: Iterable[str]) -> Iterable[str]:
    for text in texts:
        framed = f" {text.strip()} "
        yield from (framed[i : i + NGRAM] for i in range(len(framed) - NGRAM + 1))
