"""Byte-pair encoding by fastBPE's codes: which pairs of symbols merge, and in which order.

A codes file has a line ``LEFT RIGHT COUNT`` for every merge, the first learnt first; ``</w>``
ends the symbols that end words.  (Sennrich et al., arXiv 1508.07909; subword-nmt's codes of
version 0.2 mean the same, without counts.)
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
"""Of words that the library gets as one text: it queues all pairs of a text."""
# For the library a text is one long word, and the space behind each of our words is what ends it:
# the first merges of all join a letter and a space, and none has a space on its left.
_SPACE = " "
_UNKNOWN = "not known"  # has a space inside, as no symbol has
Pair = tuple[str, str]


class Codes:
    """Merges, and what they make of words.

    :param merges: pairs of symbols, the first to be applied first, and how often each was
        counted when it was learnt.
    :param known: the id of each written form that may stand; what merges give beside them is
        taken apart again.  None allows every form.
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
        # A symbol that several pairs give was most likely given by the first.
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
            cache_capacity=0,  # `WordTable` is one
        )
        self._tokenizer = Tokenizer(self._model)

    def ids_of(self, words: bytes) -> Ragged:
        """The ids of the pieces of words, a row each.

        :param words: in UTF-8, a space behind each.
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
        behind = np.flatnonzero(self._ends_word[numbers]) + 1
        return Ragged(pieces.values, pieces.offsets[np.append(0, behind)])

    def split(self, word: str) -> list[str]:
        """The pieces of a word, all but the last with ``@@`` behind them.

        A character that the codes do not know is a piece, and nothing merges with it.

        :param word: not empty, without spaces.
        """
        spelt = (word + _SPACE).encode()
        tokens = self._model.tokenize(word + _SPACE)
        symbols = [spelt[slice(*token.offsets)].decode() for token in tokens]
        if symbols[-1] == _SPACE:  # behind a character that is not known
            symbols[-2:] = [symbols[-2] + _SPACE]
        return [_written(part) for symbol in symbols for part in self._taken_apart(symbol)]

    def symbols(self) -> list[str]:
        """The written forms of all symbols that merges join or give, each once."""
        symbols = (part for pair in self.merges for part in (*pair, "".join(pair)))
        return [_written(_symbol(symbol)) for symbol in dict.fromkeys(symbols)]

    def _ids_of_symbol(self, symbol: str, ids: Mapping[str, int], unknown: int) -> list[int]:
        """What stands for a symbol of the library's."""
        if symbol == _SPACE:  # behind a character that is not known
            return []
        return [ids.get(part, unknown) for part in self._taken_apart(symbol)]

    def _taken_apart(self, symbol: str) -> list[str]:
        """The known symbols that a symbol was merged from, or that cannot be taken apart."""
        known = self._known is None or _written(symbol) in self._known
        if known or symbol not in self._parts:
            return [symbol]
        return [small for part in self._parts[symbol] for small in self._taken_apart(part)]


def _ragged(rows: Iterable[Sequence[int]]) -> Ragged:
    listed = list(rows)
    values = np.fromiter(itertools.chain.from_iterable(listed), np.int64)
    return Ragged(values, np.cumsum([0, *map(len, listed)]))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Without threads of the library's own, about which it warns in processes forked later; who
    has much text splits it over processes."""
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
    """A part of a merge, as a codes file writes it."""
    return part.removesuffix(END) + _SPACE if part.endswith(END) else part


def _read(form: str) -> str:
    return form.removesuffix(MARK) if form.endswith(MARK) else form + _SPACE


def _written(symbol: str) -> str:
    return symbol.removesuffix(_SPACE) if symbol.endswith(_SPACE) else symbol + MARK


def read_codes(text: str, origin: str) -> dict[Pair, int]:
    """The merges of a codes file in their order, with their counts.

    subword-nmt's files, which begin with their version, are read as well; their merges have no
    counts and get 0.

    :param text: what the file holds.
    :param origin: what error messages call it.
    :raises DataError: a line is no merge, or there is none.
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
                f"{origin}, line {number}, is no merge of two symbols: {line[:60]!r}",
                expected="codes as fastBPE writes them, such as `t h</w> 4711`",
            )
        merges.setdefault((left, right), int(count))
    if not merges:
        raise DataError(f"{origin} holds no codes", expected="lines such as `t h</w> 4711`")
    return merges


def written_codes(merges: Mapping[Pair, int]) -> str:
    """The text of a codes file."""
    return "".join(f"{left} {right} {count}\n" for (left, right), count in merges.items())
