"""Lines of words to ids: each word is tokenized once, then looked up without a Python object.

The bytes of a line are read as 64-bit numbers.  Two of them are the key of a word of up to 16
bytes, and numpy looks up the keys of many words in a hash table at once (open addressing, linear
probing).  Longer words are looked up in a dictionary.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from xlm_plugins import Ragged

CHARACTERS_AT_ONCE = 2**17
"""Characters of lines per batch, so that intermediate arrays fit into CPU caches."""
FEWEST_SLOTS = 2**18
"""Slots of the table; when half of them are used, it is cleared, which bounds the memory."""
_LONGEST = 16  # bytes of a word in the table
_SPACE, _NEWLINE = 32, 10  # a space, and all bytes below it, separate words
# By length of the word: which of the 8 bytes of each of its numbers belong to it.
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
    """A cache of the ids of words.

    :param tokenize: returns the ids of new words, one row per word; they are in UTF-8, each
        followed by a space.
    """

    def __init__(self, tokenize: Callable[[bytes], Ragged]) -> None:
        self._tokenize = tokenize
        self._clear(FEWEST_SLOTS)

    def encode(self, lines: Sequence[str]) -> Ragged:
        """The ids of lines, one row per line.

        :param lines: words separated by spaces, without newlines.
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
        content = np.frombuffer(text, np.uint8)
        is_space = content <= _SPACE
        edges = np.flatnonzero(is_space[1:] != is_space[:-1]) + 1
        begins, ends = edges[::2], edges[1::2]
        if 2 * (self._n_rows + len(begins)) > len(self._row_at):
            self._clear(max(FEWEST_SLOTS, 1 << (4 * len(begins)).bit_length()))
        try:
            rows = self._rows_of(text, begins, ends)
        except BaseException:  # such as Ctrl-C: words may point to rows that do not exist
            self._clear(FEWEST_SLOTS)
            raise
        known = Ragged(np.frombuffer(self._ids, np.int64), np.frombuffer(self._offsets, np.int64))
        words = known.take(rows)
        line_begins = np.flatnonzero(content == _NEWLINE)
        return Ragged(words.values, words.offsets[np.searchsorted(begins, line_begins)])

    def _rows_of(self, text: bytes, begins: Array, ends: Array) -> Array:
        """The row of each word; new words get one.

        :param begins: where words begin in the text.  Shape: (n_words,)
        :param ends: where they end.  Shape: (n_words,)
        """
        rows = np.empty(len(begins), np.int64)
        is_long = ends - begins > _LONGEST
        short, long = np.flatnonzero(~is_long), np.flatnonzero(is_long)
        rows[short], new = self._rows_of_keys(_keys(text, begins[short], ends[short]))
        new = short[new]
        self._add(_spaced(text, begins[new], ends[new]))
        spans = zip(begins[long].tolist(), ends[long].tolist(), strict=True)
        rows[long] = self._rows_of_long([text[begin:end] for begin, end in spans])
        return rows

    def _rows_of_keys(self, keys: Keys) -> tuple[Array, Array]:
        """The rows of keys, and which of the keys are new, each once.

        :param keys: shape (n_numbers, n_words).
        :returns: the rows, where those of new keys follow the existing rows, in order; and the
            indices of new keys.  Shapes (n_words,) and (n_new,).
        """
        n_rows, last_slot = self._n_rows, len(self._row_at) - 1
        new = [np.empty(0, np.int64)]
        slots = _mixed(keys) & last_slot
        rows, is_found = self._seen(keys, slots)
        left = np.flatnonzero(~is_found)
        while len(left):
            is_free = self._row_at[slots[left]] == 0
            wanting = left[is_free]
            # Of several words that want a free slot, one gets it, and the others try again.
            self._row_at[slots[wanting]] = wanting
            is_free[is_free] = self._row_at[slots[wanting]] == wanting
            taking, left = left[is_free], left[~is_free]
            rows[taking] = np.arange(n_rows, n_rows + len(taking))
            self._key_at[:, slots[taking]] = keys[:, taking]
            self._row_at[slots[taking]] = rows[taking]
            n_rows += len(taking)
            new.append(taking)
            rows[left], is_found = self._seen(keys[:, left], slots[left])
            left = left[~is_found]
            slots[left] = (slots[left] + 1) & last_slot
        return rows, np.concatenate(new)

    def _seen(self, keys: Keys, slots: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
        """The rows in slots, and whether they belong to the keys; both of shape (n_words,)."""
        is_found = self._key_at[0].take(slots) == keys[0]
        for there, key in zip(self._key_at[1:], keys[1:], strict=True):
            is_found &= there.take(slots) == key
        return self._row_at.take(slots), is_found

    def _rows_of_long(self, words: list[bytes]) -> list[int]:
        new = [word for word in dict.fromkeys(words) if word not in self._row_of_long]
        self._row_of_long |= {word: row for row, word in enumerate(new, start=self._n_rows)}
        self._add(b" ".join([*new, b""]))
        return [self._row_of_long[word] for word in words]

    def _add(self, words: bytes) -> None:
        """Append the rows of new words."""
        if words:
            rows = self._tokenize(words)
            self._offsets.frombytes((len(self._ids) + rows.offsets[1:]).tobytes())
            self._ids.frombytes(rows.values.tobytes())

    @property
    def _n_rows(self) -> int:
        return len(self._offsets) - 1

    def _clear(self, n_slots: int) -> None:
        """Start with no words; row 0 is unused, and marks slots as free.

        :param n_slots: number of slots, a power of two.
        """
        self._ids, self._offsets = array("q"), array("q", [0, 0])
        self._row_of_long: dict[bytes, int] = {}
        self._key_at = np.zeros((len(_MASKS), n_slots), np.uint64)
        self._row_at = np.zeros(n_slots, np.int64)


def _spaced(text: bytes, begins: Array, ends: Array) -> bytes:
    """Words of a text, each followed by a space."""
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
    """A hash of each key, all bits of which depend on all of the key."""
    mixed: Keys = keys[0] * _FACTORS[0] ^ keys[1] * _FACTORS[1]
    mixed ^= mixed >> np.uint64(29)
    upper: Keys = mixed * _FACTORS[0] >> np.uint64(32)
    return upper.astype(np.intp)
