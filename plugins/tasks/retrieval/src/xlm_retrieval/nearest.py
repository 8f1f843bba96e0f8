"""The nearest neighbour of every sentence on the other side, by its vector or by its words.

Similarities are computed in chunks of rows, so that memory does not grow with the square of the
number of sentences.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from xlm_plugins import OptionError

SCORES = ("cosine", "margin")
N_NEIGHBOURS = 4  # as the paper's k
_SIMILARITIES_AT_ONCE = 2**24  # 64 MiB
_SMALLEST_NEARNESS = np.float32(1e-6)

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


def unit(vectors: Vectors, centre: bool) -> Vectors:
    """Vectors scaled to length 1.

    :param vectors: of one side, hence of one language.  Shape: (n, dim)
    :param centre: subtract their mean first.  It is what all sentences of a language share: large
        compared to their differences, and not part of their meaning.
    """
    if centre:
        vectors = vectors - vectors.mean(axis=0)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Vectors = vectors / np.maximum(norms, 1e-12)
    return scaled


def nearest_both_ways(left: Vectors, right: Vectors, score: str) -> tuple[Rows, Rows]:
    """For each row, the row of the other side that scores best with it; of equals the first.

    ``cosine`` scores x and y by cos(x, y).  ``margin`` divides that by how close x and y are to the
    other side in general (the ratio margin of Artetxe and Schwenk 2019, arXiv 1811.01136, equations
    2 and 3), with k = 4 and NN(x) the k nearest neighbours of x on the other side::

        margin(x, y) = cos(x, y) / (sum of cos(x, z) / 2k over z in NN(x)
                                    + sum of cos(y, z) / 2k over z in NN(y))

    :param left: unit vectors.  Shape: (n, dim)
    :param right: unit vectors.  Shape: (m, dim)
    :returns: rows of ``right``, shape (n,), and rows of ``left``, shape (m,).
    :raises OptionError: too few rows for a margin.
    """
    if score == "cosine":
        near_left, near_right = (np.ones(len(side), np.float32) for side in (left, right))
    else:
        near_left, near_right = _nearness(left, right), _nearness(right, left)
    return (
        _best(left, right, near_left, near_right),
        _best(right, left, near_right, near_left),
    )


def nearest_by_words(queries: Sequence[str], candidates: Sequence[str]) -> Rows:
    """For each query, the candidate with the most similar set of lower-cased words.

    Similarity is Jaccard's: common words / all words of the two.  Of equals the first candidate,
    which a query without common words gets as well.

    :returns: rows of ``candidates``.  Shape: (len(queries),)
    """
    words_of = [_words(text) for text in candidates]
    n_words = np.array([len(words) for words in words_of])
    gathered = defaultdict(list)
    for row, words in enumerate(words_of):
        for word in words:
            gathered[word].append(row)
    rows_with = {word: np.array(rows) for word, rows in gathered.items()}
    nothing = np.empty(0, np.int64)
    found = np.empty(len(queries), np.int64)
    for query, words in enumerate(map(_words, queries)):
        rows = np.concatenate([nothing, *(rows_with.get(word, nothing) for word in words)])
        n_common = np.bincount(rows, minlength=len(candidates))
        n_either = np.maximum(len(words) + n_words - n_common, 1)
        found[query] = (n_common / n_either).argmax()
    return found


def _best(queries: Vectors, candidates: Vectors, near_queries: Vectors, near: Vectors) -> Rows:
    found = [
        (similarities / ((near_queries[rows, None] + near) / 2)).argmax(axis=1)
        for rows, similarities in _similarities(queries, candidates)
    ]
    return np.concatenate(found)


def _nearness(queries: Vectors, candidates: Vectors) -> Vectors:
    """The mean cosine of each query to its nearest candidates.  Shape: (n_queries,)"""
    k = N_NEIGHBOURS
    if len(candidates) <= k:
        raise OptionError(
            f"margin scoring needs the {k} nearest of {len(candidates)} sentences",
            expected=f"more than {k} pairs",
            remedy="--score cosine",
        )
    means = [
        np.partition(similarities, -k, axis=1)[:, -k:].mean(axis=1)
        for _, similarities in _similarities(queries, candidates)
    ]
    # The mean of a sentence that is close to none may be negative, and must not divide.
    nearness: Vectors = np.maximum(np.concatenate(means), _SMALLEST_NEARNESS)
    return nearness


def _similarities(queries: Vectors, candidates: Vectors) -> Iterator[tuple[slice, Vectors]]:
    """Chunks of rows, and their cosines with all candidates."""
    n_rows = max(_SIMILARITIES_AT_ONCE // len(candidates), 1)
    for begin in range(0, len(queries), n_rows):
        rows = slice(begin, begin + n_rows)
        yield rows, queries[rows] @ candidates.T


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
