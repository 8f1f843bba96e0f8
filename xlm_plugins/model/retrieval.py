"""Finding translations by nearest neighbour: a direct measure of how well languages align."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]


def retrieval_accuracy(queries: Vectors, candidates: Vectors) -> float:
    """Share of queries whose nearest candidate by cosine is their own translation, in percent.

    Each side is centred first: the mean of a side is what its language has in common.

    :param queries: row i is the translation of candidate i. Shape: (n, dim)
    :param candidates: shape (n, dim).
    """
    nearest = (_unit(queries) @ _unit(candidates).T).argmax(axis=1)
    return 100 * float((nearest == np.arange(len(queries))).mean())


def overlap_accuracy(queries: Sequence[str], candidates: Sequence[str]) -> float:
    """The same by the share of lower-cased words in common (Jaccard): what spelling alone gives.

    A tie goes to the first candidate, so names and numbers decide, as they would by eye.
    """
    candidate_words = [_words(text) for text in candidates]
    hits = 0
    for index, text in enumerate(queries):
        words = _words(text)
        scores = [len(words & other) / max(len(words | other), 1) for other in candidate_words]
        hits += int(np.argmax(scores)) == index
    return 100 * hits / len(queries)


def _unit(vectors: Vectors) -> Vectors:
    centred = vectors - vectors.mean(axis=0)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    unit: Vectors = centred / np.maximum(norms, 1e-12)
    return unit


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
