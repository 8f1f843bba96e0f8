"""Byte-pair encoding by fastBPE's codes: which pairs of symbols merge, and in which order.

A codes file has a line ``LEFT RIGHT COUNT`` for every merge, the first learnt first; ``</w>``
ends the symbols that end words.  (Sennrich et al., arXiv 1508.07909; subword-nmt's codes of
version 0.2 mean the same, without counts.)
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from tokenizers import models

from xlm_plugins import DataError, Ragged

END = "</w>"
MARK = "@@"
_UNKNOWN = "not known"  # has a space, as no symbol has
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
        # A symbol that several pairs give was most likely given by the first.
        self._parts = {left + right: (left, right) for left, right in reversed(self.merges)}
        symbols = dict.fromkeys(part for pair in self.merges for part in (*pair, "".join(pair)))
        ids = {_symbol(form): number for form, number in (known or {}).items()}
        symbols |= dict.fromkeys(symbol for symbol in ids if len(symbol.removesuffix(END)) == 1)
        # The model's own numbers are the ids, and above them stands what has none.
        self._first_other = 1 + max(ids.values(), default=-1)
        others = itertools.count(self._first_other)
        numbers = {symbol: ids[symbol] if symbol in ids else next(others) for symbol in symbols}
        numbers[_UNKNOWN] = next(others)
        self._instead = {
            number: [ids.get(part, unknown) for part in self._taken_apart(symbol)]
            for symbol, number in numbers.items()
            if number >= self._first_other
        }
        self._model = models.BPE(
            vocab=numbers,
            merges=list(self.merges),
            unk_token=_UNKNOWN,
            end_of_word_suffix=END,
            cache_capacity=0,  # `WordTable` is one
        )

    def ids_of(self, words: Sequence[str]) -> Ragged:
        """The ids of the pieces of words, a row each.

        :param words: none is empty or has spaces.
        """
        cut = list(map(self._model.tokenize, words))
        ids = np.array([token.id for tokens in cut for token in tokens], np.int64)
        rows = Ragged(ids, np.cumsum([0, *map(len, cut)]))
        others = np.flatnonzero(ids >= self._first_other)
        if not len(others):
            return rows
        mended = [[token.id for token in tokens] for tokens in cut]
        for place in set((np.searchsorted(rows.offsets, others, side="right") - 1).tolist()):
            parts = [self._instead.get(number, [number]) for number in mended[place]]
            mended[place] = list(itertools.chain.from_iterable(parts))
        values = np.fromiter(itertools.chain.from_iterable(mended), np.int64)
        return Ragged(values, np.cumsum([0, *map(len, mended)]))

    def split(self, word: str) -> list[str]:
        """The pieces of a word, all but the last with ``@@`` behind them.

        A character that the codes do not know is a piece, and nothing merges with it.

        :param word: not empty, without spaces.
        """
        tokens = self._model.tokenize(word)
        symbols = [token.value for token in tokens]
        if _UNKNOWN in symbols:  # which characters those were is to be seen from their place
            spelt = word.encode()
            for place, token in enumerate(tokens):
                if token.value == _UNKNOWN:
                    symbols[place] = spelt[slice(*token.offsets)].decode()
            symbols[-1] = symbols[-1].removesuffix(END) + END
        pieces = [_written(symbol) for symbol in symbols]
        if self._known is None or self._known.keys() >= set(pieces):
            return pieces
        return [_written(part) for symbol in symbols for part in self._taken_apart(symbol)]

    def symbols(self) -> list[str]:
        """The written forms of all symbols that merges join or give, each once."""
        symbols = (part for pair in self.merges for part in (*pair, "".join(pair)))
        return [_written(symbol) for symbol in dict.fromkeys(symbols)]

    def _taken_apart(self, symbol: str) -> list[str]:
        """The known symbols that a symbol was merged from, or that cannot be taken apart."""
        known = self._known is None or _written(symbol) in self._known
        if known or symbol not in self._parts:
            return [symbol]
        return [small for part in self._parts[symbol] for small in self._taken_apart(part)]


def _symbol(written: str) -> str:
    return written.removesuffix(MARK) if written.endswith(MARK) else written + END


def _written(symbol: str) -> str:
    return symbol.removesuffix(END) if symbol.endswith(END) else symbol + MARK


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
