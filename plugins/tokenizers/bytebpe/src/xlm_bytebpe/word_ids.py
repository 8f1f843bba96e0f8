"""Lines to ids by words that have been met: each is cut once.

GPT-2's pattern cuts a line into runs of letters, of digits, of other signs and of white space; a
space goes with what follows it.  So a space before something that is no white space always
begins a run, and words that are cut off there have the ids that they have in the line.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Sequence

import numpy as np

from xlm_plugins import Ragged

MOST_IDS = 2**22
"""Ids that are kept; beyond that all words are forgotten, which bounds the memory."""
LONGEST = 40
"""Characters of a word that is worth remembering; a line of Chinese is one word."""
# `\s` takes in more than the white space of GPT-2's pattern: before that, nothing is cut.
_BEFORE_A_WORD = re.compile(r" (?=\S)")


class WordIds:
    """The ids of words that have been met.

    :param cut: the ids of a text.
    """

    def __init__(self, cut: Callable[[str], list[int]]) -> None:
        self._cut = cut
        self._forget()

    def encode(self, texts: Sequence[str]) -> Ragged:
        """The ids of texts, a row each."""
        if len(self._ids) > MOST_IDS:
            self._forget()
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
        self._ids.extend(self._cut(text))
        self._offsets.append(len(self._ids))
        return len(self._offsets) - 2

    def _forget(self) -> None:
        self._ids, self._offsets = array("q", [0]), array("q", [0, 1])  # row 0 is nobody's
        self._first = _Rows(self._row)
        self._other = _Rows(lambda word: self._row(f" {word}"))


class _Rows(dict[str, int]):
    """The row of each word; a new one is cut."""

    def __init__(self, row: Callable[[str], int]) -> None:
        self._row = row

    def __missing__(self, word: str) -> int:
        row = self._row(word)
        if len(word) <= LONGEST:
            self[word] = row
        return row
