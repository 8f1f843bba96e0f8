"""Byte-pair encoding with fastBPE's codes: which pairs of symbols merge, and in which order.

A codes file has a line ``LEFT RIGHT COUNT`` for every merge, in the order of learning; symbols at
the end of a word end in ``</w>``.  (Sennrich et al., arXiv 1508.07909; subword-nmt's codes of
version 0.2 are the same without counts.)
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from tokenizers import Tokenizer, models

from xlm_plugins import DataError, Ragged

END = "</w>"
MARK = "@@"
BYTES_AT_ONCE = 2000
"""Bytes of words per text for the library, which queues all pairs of a text."""
# To the library, a text is one long word, in which a space marks the end of each of our words: the
# very first merges join a letter and a space, and no merge has a space on its left.
_SPACE = " "
_UNKNOWN = "not known"  # has an inner space, unlike any symbol
Pair = tuple[str, str]


class Codes:
    """Merges, and how they split words into pieces.

    :param merges: pairs of symbols in the order in which they are applied, and the count of each
        when it was learned.
    :param known: the id of each piece in the vocabulary; other results of merges are split again.
        None allows every piece.
    :param unknown: the id of pieces that have none.
    """

    def __init__(
        self,
        merges: Mapping[Pair, int],
        known: Mapping[str, int] | None = None,
        unknown: int = 0,
    ) -> None:
        self.merges = dict(merges)
        self._known = known
        pairs = [(_symbol(left), _symbol(right)) for left, right in self.merges]
        # A symbol that several pairs make was most likely made by the first.
        self._parts = {left + right: (left, right) for left, right in reversed(pairs)}
        ids = {_read(form): number for form, number in (known or {}).items()}
        forms = [part for pair in pairs for part in pair] + list(ids)
        letters = {form[0] for form in forms if len(form.removesuffix(_SPACE)) == 1}
        ends = [(letter, _SPACE) for letter in sorted(letters)]
        symbols = dict.fromkeys(part for pair in ends + pairs for part in (*pair, "".join(pair)))
        numbers = {symbol: number for number, symbol in enumerate([*symbols, _UNKNOWN])}
        self._ids = _ragged(self._ids_of_symbol(symbol, ids, unknown) for symbol in numbers)
        self._ends_word = np.array([symbol.endswith(_SPACE) for symbol in numbers])
        self._model = models.BPE(
            vocab=numbers,
            merges=ends + pairs,
            unk_token=_UNKNOWN,
            cache_capacity=0,  # `WordTable` is the cache
        )
        self._tokenizer = Tokenizer(self._model)

    def ids_of(self, words: bytes) -> Ragged:
        """The ids of the pieces of words, one row per word.

        :param words: in UTF-8, each followed by a space.
        """
        texts, begin = [], 0
        while begin < len(words):
            end = words.find(b" ", begin + BYTES_AT_ONCE) + 1 or len(words)
            texts.append(words[begin:end].decode())
            begin = end
        with _one_thread():
            cut = self._tokenizer.encode_batch_fast(texts)
        numbers = np.concatenate([np.empty(0, np.int64), *(text.ids for text in cut)])
        pieces = self._ids.take(numbers)
        ends = np.flatnonzero(self._ends_word[numbers]) + 1
        return Ragged(pieces.values, pieces.offsets[np.append(0, ends)])

    def split(self, word: str) -> list[str]:
        """The pieces of a word; all but the last end in ``@@``.

        A character that the codes do not have is a piece, and nothing merges with it.

        :param word: not empty, without spaces.
        """
        spelling = (word + _SPACE).encode()
        tokens = self._model.tokenize(word + _SPACE)
        symbols = [spelling[slice(*token.offsets)].decode() for token in tokens]
        if symbols[-1] == _SPACE:  # after an unknown character
            symbols[-2:] = [symbols[-2] + _SPACE]
        return [_written(part) for symbol in symbols for part in self._split_unknown(symbol)]

    def symbols(self) -> list[str]:
        """The written forms of all symbols that merges join or make, each once."""
        symbols = (part for pair in self.merges for part in (*pair, "".join(pair)))
        return [_written(_symbol(symbol)) for symbol in dict.fromkeys(symbols)]

    def _ids_of_symbol(self, symbol: str, ids: Mapping[str, int], unknown: int) -> list[int]:
        """The ids for one of the library's symbols."""
        if symbol == _SPACE:  # after an unknown character
            return []
        return [ids.get(part, unknown) for part in self._split_unknown(symbol)]

    def _split_unknown(self, symbol: str) -> list[str]:
        """Undo merges until all symbols are in the vocabulary, or cannot be split."""
        known = self._known is None or _written(symbol) in self._known
        if known or symbol not in self._parts:
            return [symbol]
        return [small for part in self._parts[symbol] for small in self._split_unknown(part)]


def _ragged(rows: Iterable[Sequence[int]]) -> Ragged:
    listed = list(rows)
    values = np.fromiter(itertools.chain.from_iterable(listed), np.int64)
    return Ragged(values, np.cumsum([0, *map(len, listed)]))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Turn off the library's threads, about which it would warn in processes forked later; callers
    with much text spread it over processes."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _symbol(part: str) -> str:
    """The library's symbol for a part of a merge in a codes file."""
    return part.removesuffix(END) + _SPACE if part.endswith(END) else part


def _read(form: str) -> str:
    return form.removesuffix(MARK) if form.endswith(MARK) else form + _SPACE


def _written(symbol: str) -> str:
    return symbol.removesuffix(_SPACE) if symbol.endswith(_SPACE) else symbol + MARK


def read_codes(text: str, origin: str) -> dict[Pair, int]:
    """The merges of a codes file in order, with their counts.

    subword-nmt's files, which begin with their version, can be read too; their merges have no
    counts and get 0.

    :param text: the content of the file.
    :param origin: its name, for error messages.
    :raises DataError: a line is not a merge, or there is none.
    """
    merges: dict[Pair, int] = {}
    lines = text.split("\n")
    has_counts = not lines[0].startswith("#version:")
    for number, line in enumerate(lines, start=1):
        fields = line.rstrip("\r").split(" ")
        if fields == [""] or (number == 1 and not has_counts):
            continue
        left, right, count = [*fields, *([] if has_counts else ["0"]), "", ""][:3]
        if len(fields) != 2 + has_counts or not (left and right and count.isdecimal()):
            raise DataError(
                f"{origin}, line {number}, is not a merge of two symbols: {line[:60]!r}",
                expected="codes as fastBPE writes them, such as `t h</w> 4711`",
            )
        merges.setdefault((left, right), int(count))
    if not merges:
        raise DataError(f"{origin} contains no codes", expected="lines such as `t h</w> 4711`")
    return merges


def written_codes(merges: Mapping[Pair, int]) -> str:
    """The content of a codes file."""
    return "".join(f"{left} {right} {count}\n" for (left, right), count in merges.items())
