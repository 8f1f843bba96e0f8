"""Lines of words to ids: each word is cut once, and then looked up without a Python object.

A line's bytes are seen as 64-bit numbers, so that a word of up to 16 bytes is two of them, and
numpy finds all words of many lines in a table at once.  The table keeps one word a place, the
last that came there; words that are not at their place, and long ones, go by a dictionary.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from xlm_plugins import Ragged

MOST_WORDS = 2**20
"""Words that are kept; beyond that all are forgotten, which bounds the memory."""
LINES_AT_ONCE = 1000
_BITS = 18  # of a place in the table
_LONGEST = 16  # bytes of a word in the table
_SPACE = 32  # this byte and those below stand between words
# Of the 8 bytes that begin at a place, those that belong to a word of 0 to 16 bytes.
_MASKS = np.array([2 ** (8 * n) - 1 for n in range(9)], np.uint64)
_FIRST = _MASKS[np.minimum(np.arange(_LONGEST + 1), 8)]
_SECOND = _MASKS[np.maximum(np.arange(_LONGEST + 1) - 8, 0)]
_FACTORS = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))  # odd, bits mixed

Array = npt.NDArray[np.integer]


class WordTable:
    """The ids of words that have been met.

    :param cut: gives the ids of some words that have not been met, a row each.
    """

    def __init__(self, cut: Callable[[Sequence[str]], Ragged]) -> None:
        self._cut = cut
        self._forget()

    def encode(self, lines: Sequence[str]) -> Ragged:
        """The ids of lines.

        :param lines: words with spaces between them.
        """
        parts = [
            self._encode_some(lines[begin : begin + LINES_AT_ONCE])
            for begin in range(0, len(lines), LINES_AT_ONCE)
        ]
        values = [np.empty(0, np.int64), *(part.values for part in parts)]
        lengths = [np.zeros(1, np.int64), *(part.lengths for part in parts)]
        return Ragged(np.concatenate(values), np.cumsum(np.concatenate(lengths)))

    def _encode_some(self, lines: Sequence[str]) -> Ragged:
        if len(self._row_of) > MOST_WORDS:
            self._forget()
        spelt = [line.encode() for line in lines]
        text = b" " + b" ".join(spelt) + b" " * (_LONGEST + 1)
        is_space = np.frombuffer(text, np.uint8) <= _SPACE
        edges = np.flatnonzero(is_space[1:] != is_space[:-1]) + 1
        begins, ends = edges[::2], edges[1::2]
        rows = self._rows_of(text, begins, ends)
        known = Ragged(np.frombuffer(self._ids, np.int64), np.frombuffer(self._offsets, np.int64))
        words = known.take(rows)
        line_begins = list(itertools.accumulate((len(line) + 1 for line in spelt), initial=1))
        return Ragged(words.values, words.offsets[np.searchsorted(begins, line_begins)])

    def _rows_of(self, text: bytes, begins: Array, ends: Array) -> Array:
        """Which row of the ids each word has.

        :param begins: where words begin in the text.  Shape: (n_words,)
        :param ends: where they end.  Shape: (n_words,)
        """
        lengths = ends - begins
        is_short = lengths <= _LONGEST
        bounded = np.minimum(lengths, _LONGEST)
        eight_bytes = np.ndarray((len(text) - 7,), "<u8", text, strides=(1,))
        first = eight_bytes[begins] & _FIRST[bounded]
        second = eight_bytes[begins + 8] & _SECOND[bounded]
        places = _mixed(first, second)
        rows = self._rows[places]
        met = is_short & (self._first[places] == first) & (self._second[places] == second)
        others = np.flatnonzero(~met)
        spans = zip(begins[others].tolist(), ends[others].tolist(), strict=True)
        rows[others] = self._looked_up([text[begin:end] for begin, end in spans])
        kept = others[is_short[others]]
        self._first[places[kept]] = first[kept]
        self._second[places[kept]] = second[kept]
        self._rows[places[kept]] = rows[kept]
        return rows

    def _looked_up(self, words: list[bytes]) -> list[int]:
        """The rows of words by the dictionary; those that are not in there are cut."""
        new = [word for word in dict.fromkeys(words) if word not in self._row_of]
        if new:
            rows = self._cut([word.decode() for word in new])
            self._row_of.update(zip(new, itertools.count(len(self._offsets) - 1)))
            self._offsets.frombytes((len(self._ids) + rows.offsets[1:]).tobytes())
            self._ids.frombytes(rows.values.tobytes())
        return list(map(self._row_of.__getitem__, words))

    def _forget(self) -> None:
        """Begin with no words; row 0 is nobody's."""
        self._row_of: dict[bytes, int] = {}
        self._ids, self._offsets = array("q", [0]), array("q", [0, 1])
        self._first = np.zeros(2**_BITS, np.uint64)  # of a word's two numbers
        self._second = np.zeros(2**_BITS, np.uint64)
        self._rows = np.zeros(2**_BITS, np.int64)


def _mixed(first: npt.NDArray[np.uint64], second: npt.NDArray[np.uint64]) -> Array:
    """A place in the table for each word."""
    mixed = first * _FACTORS[0] ^ second * _FACTORS[1]
    mixed ^= mixed >> np.uint64(29)
    return (mixed * _FACTORS[0] >> np.uint64(64 - _BITS)).astype(np.intp)
