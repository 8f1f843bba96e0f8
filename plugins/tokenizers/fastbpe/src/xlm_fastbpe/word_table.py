"""Lines of words to ids: each word is cut once, and then looked up without a Python object.

A line's bytes are seen as 64-bit numbers, so that a word of up to 16 bytes is two of them, its
key, and numpy finds the keys of many words in a hash table at once (open addressing, linear
probing).  Longer words go by a dictionary.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from xlm_plugins import Ragged

CHARACTERS_AT_ONCE = 2**17
"""Of lines, so that what is made of them on the way fits caches."""
FEWEST_PLACES = 2**18
"""Places of the table, of which half are used before all words are forgotten; this bounds the
memory."""
_LONGEST = 16  # bytes of a word in the table
_SPACE, _NEWLINE = 32, 10  # the first, and all bytes below it, stand between words
# Of the 8 bytes that begin at each of a word's numbers, those that belong to it, by its length.
_MASKS = np.array(
    [
        [2 ** (8 * min(max(length - first, 0), 8)) - 1 for length in range(_LONGEST + 1)]
        for first in range(0, _LONGEST, 8)
    ],
    np.uint64,
)
_FACTORS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], np.uint64)  # odd, bits mixed

Array = npt.NDArray[np.integer]
Keys = npt.NDArray[np.uint64]


class WordTable:
    """The ids of words that have been met.

    :param cut: gives the ids of some words that have not been met, a row each; they are in
        UTF-8, and a space stands behind each.
    """

    def __init__(self, cut: Callable[[bytes], Ragged]) -> None:
        self._cut = cut
        self._forget(FEWEST_PLACES)

    def encode(self, lines: Sequence[str]) -> Ragged:
        """The ids of lines.

        :param lines: words with spaces between them, and no newlines.
        """
        n_characters = np.cumsum(np.fromiter(map(len, lines), np.int64, len(lines)))
        n_batches = 1 + int(n_characters[-1]) // CHARACTERS_AT_ONCE if lines else 0
        ends = np.searchsorted(n_characters, CHARACTERS_AT_ONCE * np.arange(1, n_batches + 1))
        pairs = itertools.pairwise([0, *np.unique(ends).tolist()])
        parts = [self._encode_some(lines[begin:end]) for begin, end in pairs]
        values = [np.empty(0, np.int64), *(part.values for part in parts)]
        lengths = [np.zeros(1, np.int64), *(part.lengths for part in parts)]
        return Ragged(np.concatenate(values), np.cumsum(np.concatenate(lengths)))

    def _encode_some(self, lines: Sequence[str]) -> Ragged:
        text = "\n".join(["", *lines, " " * _LONGEST]).encode()
        spelt = np.frombuffer(text, np.uint8)
        is_space = spelt <= _SPACE
        edges = np.flatnonzero(is_space[1:] != is_space[:-1]) + 1
        begins, ends = edges[::2], edges[1::2]
        if 2 * (self._n_rows + len(begins)) > len(self._row_at):
            self._forget(max(FEWEST_PLACES, 1 << (4 * len(begins)).bit_length()))
        try:
            rows = self._rows_of(text, begins, ends)
        except BaseException:  # such as Ctrl-C: words may have rows that were never made
            self._forget(FEWEST_PLACES)
            raise
        known = Ragged(np.frombuffer(self._ids, np.int64), np.frombuffer(self._offsets, np.int64))
        words = known.take(rows)
        line_begins = np.flatnonzero(spelt == _NEWLINE)
        return Ragged(words.values, words.offsets[np.searchsorted(begins, line_begins)])

    def _rows_of(self, text: bytes, begins: Array, ends: Array) -> Array:
        """Which row of the ids each word has; words that have not been met get theirs.

        :param begins: where words begin in the text.  Shape: (n_words,)
        :param ends: where they end.  Shape: (n_words,)
        """
        rows = np.empty(len(begins), np.int64)
        is_long = ends - begins > _LONGEST
        short, long = np.flatnonzero(~is_long), np.flatnonzero(is_long)
        rows[short], new = self._rows_of_keys(_keys(text, begins[short], ends[short]))
        new = short[new]
        self._learn(_spaced(text, begins[new], ends[new]))
        spans = zip(begins[long].tolist(), ends[long].tolist(), strict=True)
        rows[long] = self._rows_of_long([text[begin:end] for begin, end in spans])
        return rows

    def _rows_of_keys(self, keys: Keys) -> tuple[Array, Array]:
        """The rows of keys, and which of the keys are new, each of them once.

        :param keys: shape (n_numbers, n_words).
        :returns: the rows, new ones behind those that there are in the order of the new keys;
            shapes (n_words,) and (n_new,).
        """
        n_rows, last_place = self._n_rows, len(self._row_at) - 1
        new = [np.empty(0, np.int64)]
        places = _mixed(keys) & last_place
        rows, is_found = self._seen(keys, places)
        left = np.flatnonzero(~is_found)
        while len(left):
            is_free = self._row_at[places[left]] == 0
            wanting = left[is_free]
            # Of several words that want a free place, one gets it, and the others look again.
            self._row_at[places[wanting]] = wanting
            is_free[is_free] = self._row_at[places[wanting]] == wanting
            taking, left = left[is_free], left[~is_free]
            rows[taking] = np.arange(n_rows, n_rows + len(taking))
            self._key_at[:, places[taking]] = keys[:, taking]
            self._row_at[places[taking]] = rows[taking]
            n_rows += len(taking)
            new.append(taking)
            rows[left], is_found = self._seen(keys[:, left], places[left])
            left = left[~is_found]
            places[left] = (places[left] + 1) & last_place
        return rows, np.concatenate(new)

    def _seen(self, keys: Keys, places: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
        """The rows at places, and whether they are those of the keys; each of shape (n_words,)."""
        is_found = self._key_at[0].take(places) == keys[0]
        for there, key in zip(self._key_at[1:], keys[1:], strict=True):
            is_found &= there.take(places) == key
        return self._row_at.take(places), is_found

    def _rows_of_long(self, words: list[bytes]) -> list[int]:
        new = [word for word in dict.fromkeys(words) if word not in self._row_of_long]
        self._row_of_long |= {word: row for row, word in enumerate(new, start=self._n_rows)}
        self._learn(b" ".join([*new, b""]))
        return [self._row_of_long[word] for word in words]

    def _learn(self, words: bytes) -> None:
        """Give words the next rows."""
        if words:
            rows = self._cut(words)
            self._offsets.frombytes((len(self._ids) + rows.offsets[1:]).tobytes())
            self._ids.frombytes(rows.values.tobytes())

    @property
    def _n_rows(self) -> int:
        return len(self._offsets) - 1

    def _forget(self, n_places: int) -> None:
        """Begin with no words; row 0 is nobody's, and marks places as free.

        :param n_places: a power of two.
        """
        self._ids, self._offsets = array("q"), array("q", [0, 0])
        self._row_of_long: dict[bytes, int] = {}
        self._key_at = np.zeros((len(_MASKS), n_places), np.uint64)
        self._row_at = np.zeros(n_places, np.int64)


def _spaced(text: bytes, begins: Array, ends: Array) -> bytes:
    """Words of a text, a space behind each."""
    lengths = ends - begins + 1
    offsets = np.cumsum(lengths)
    source = np.arange(lengths.sum()) + np.repeat(begins - offsets + lengths, lengths)
    found = np.frombuffer(text, np.uint8)[source]
    found[offsets - 1] = _SPACE
    return bytes(found)


def _keys(text: bytes, begins: Array, ends: Array) -> Keys:
    """Words as numbers; shape (n_numbers, n_words)."""
    eight_bytes = np.ndarray((len(text) - 7,), "<u8", text, strides=(1,))
    lengths = ends - begins
    numbered = enumerate(_MASKS)
    return np.stack([eight_bytes[begins + 8 * n] & masks[lengths] for n, masks in numbered])


def _mixed(keys: Keys) -> npt.NDArray[np.intp]:
    """A number of which all bits depend on all of a key."""
    mixed: Keys = keys[0] * _FACTORS[0] ^ keys[1] * _FACTORS[1]
    mixed ^= mixed >> np.uint64(29)
    upper: Keys = mixed * _FACTORS[0] >> np.uint64(32)
    return upper.astype(np.intp)
