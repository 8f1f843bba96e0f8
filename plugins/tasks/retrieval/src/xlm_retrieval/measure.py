"""How often a sentence's nearest neighbour on the other side is its translation."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from xlm_plugins import OptionError
from xlm_retrieval.nearest import Rows, Vectors, nearest_both_ways, nearest_by_words, unit


class Embed(Protocol):
    """Maps texts to vectors, as `xlm_plugins.load(RUN).embed` does."""

    def __call__(self, texts: Sequence[str], language: str, *, layer: int) -> Vectors:
        """:returns: shape (len(texts), dim)."""


@dataclass(frozen=True)
class Side:
    """One side of parallel text."""

    language: str
    texts: Sequence[str]

    def share_found(self, nearest: Rows, other: Side) -> float:
        """How often the nearest row of the other side is the translation, in percent.

        If the text of the translation occurs several times, any of them counts.

        :param nearest: for each row of this side, one of the other.  Shape: (n,)
        """
        translations = other.texts
        hits = [translations[row] == own for row, own in zip(nearest, translations, strict=True)]
        return 100 * hits.count(True) / len(hits)


@dataclass(frozen=True)
class Accuracy:
    """How many translations one score finds, in percent.

    :param score: cosine or margin, or a baseline: chance or word overlap.
    :param layer: the layer whose states were compared; 0 is the embeddings.
    :param forth: of the left side's sentences.
    :param back: of the right side's.
    """

    score: str
    layer: int | None
    forth: float
    back: float


def baselines(left: Side, right: Side) -> list[Accuracy]:
    """What a random guess finds, and what spelling alone does: names, numbers, common words."""
    chance = Accuracy("chance", None, _chance(right.texts), _chance(left.texts))
    forth = left.share_found(nearest_by_words(left.texts, right.texts), right)
    back = right.share_found(nearest_by_words(right.texts, left.texts), left)
    return [chance, Accuracy("word overlap", None, forth, back)]


def accuracies(
    embed: Embed,
    left: Side,
    right: Side,
    layers: Sequence[int],
    scores: Sequence[str],
    *,
    centre: bool = True,
) -> Iterator[Accuracy]:
    """Measure layer by layer, with the vectors of one layer in memory at a time.

    :param centre: subtract each side's mean first (`unit` says why).
    :raises OptionError: too few sentences for a margin.
    """
    for layer in layers:
        a, b = (unit(embed(s.texts, s.language, layer=layer), centre) for s in (left, right))
        for score in scores:
            forth, back = nearest_both_ways(a, b, score)
            yield Accuracy(
                score, layer, left.share_found(forth, right), right.share_found(back, left)
            )


def chosen_layers(text: str, n_layers: int) -> list[int]:
    """Parse ``all`` or ``0,2,-1``; negative numbers count from the last layer.

    :returns: numbers from 0 (the embeddings) to ``n_layers``, each once, in the order given.
    :raises OptionError: not a number, or a layer that does not exist.
    """
    if text == "all":
        return list(range(n_layers + 1))
    chosen = []
    for part in map(str.strip, text.split(",")):
        number = int(part) if re.fullmatch(r"-?\d+", part) else None
        if number is None or not -n_layers - 1 <= number <= n_layers:
            raise OptionError(
                f"--layers {text}: there is no layer {part!r}",
                expected=f"all, or numbers from 0 (the embeddings) to {n_layers}, or from -1 (the "
                f"last) to {-n_layers - 1}, with commas between",
            )
        chosen.append(number % (n_layers + 1))
    return list(dict.fromkeys(chosen))


def _chance(texts: Sequence[str]) -> float:
    """How often a random guess among them is right, in percent; above 1 / n with duplicates."""
    counts = np.array(list(Counter(texts).values()))
    return 100 * float((counts**2).sum()) / len(texts) ** 2
