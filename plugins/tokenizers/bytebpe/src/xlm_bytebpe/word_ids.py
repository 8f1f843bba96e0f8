"""Lines to ids through a cache of words, so that each word is tokenized once.

GPT-2's pattern splits a line into runs of letters, of digits, of other characters and of white
space; a space belongs to what follows it.  So a space before anything but white space always
begins a run, and a word split off there has the same ids as in its line.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Sequence

import numpy as np

from xlm_plugins import Ragged

MOST_IDS = 2**22
"""Limit of cached ids, which bounds the memory; beyond it the cache is cleared."""
LONGEST = 40
"""Limit of characters in a cached word; a whole line of Chinese is one word."""
# `\s` includes more than the white space of GPT-2's pattern: nothing is split before those.
_BEFORE_A_WORD = re.compile(r" (?=\S)")


class WordIds:
    """A cache of the ids of words.

    :param tokenize: returns the ids of a text.
    """

    def __init__(self, tokenize: Callable[[str], list[int]]) -> None:
        self._tokenize = tokenize
        self._clear()

    def encode(self, texts: Sequence[str]) -> Ragged:
        """The ids of texts, one row each."""
        if len(self._ids) > MOST_IDS:
            self._clear()
        words: list[int] = []
        ends = [0]
        for text in texts:
            first, *others = _BEFORE_A_WORD.split(text)
            words.append(self._first[first])
            words.extend(map(self._other.__getitem__, others))
            ends.append(len(words))
        known = Ragged(np.frombuffer(self._ids, np.int64), np.frombuffer(self._offsets, np.int64))
        found = known.take(np.array(words, np.int64))
        return Ragged(found.values, found.offsets[ends])

    def _row(self, text: str) -> int:
        self._ids.extend(self._tokenize(text))
        self._offsets.append(len(self._ids))
        return len(self._offsets) - 2

    def _clear(self) -> None:
        self._ids, self._offsets = array("q", [0]), array("q", [0, 1])  # row 0 is unused
        self._first = _Rows(self._row)
        self._other = _Rows(lambda word: self._row(f" {word}"))


class _Rows(dict[str, int]):
    """The row of each word; a new word is tokenized."""

    def __init__(self, row: Callable[[str], int]) -> None:
        self._row = row

    def __missing__(self, word: str) -> int:
        row = self._row(word)
        if len(word) <= LONGEST:
            self[word] = row
        return row
