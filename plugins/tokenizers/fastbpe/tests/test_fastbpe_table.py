"""The table of words: the same ids whatever is cached, and however words are spelled."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from xlm_fastbpe import word_table
from xlm_fastbpe.word_table import WordTable

from xlm_plugins import Ragged


def number_of(word: str) -> int:
    return int.from_bytes(word.encode()) % 1_000_003


class Cutter:
    """Returns two ids for each word, or one if it is short; records its calls."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, words: bytes) -> Ragged:
        *found, last = words.decode().split(" ")
        assert all(found)
        assert not last
        self.asked += found
        return Ragged.of([self.ids(word) for word in found])

    @staticmethod
    def ids(word: str) -> list[int]:
        return [number_of(word), len(word)][: 1 if len(word) < 3 else 2]


def expected(lines: Sequence[str]) -> list[list[int]]:
    return [[i for word in line.split() for i in Cutter.ids(word)] for line in lines]


def rows_of(table: WordTable, lines: Sequence[str]) -> list[list[int]]:
    return [row.tolist() for row in table.encode(lines).rows]


def some_lines(n: int) -> list[str]:
    """Words of 1 to 20 bytes, of letters of 1 to 4 bytes."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abéλ中𓀀", k=rng.randint(1, 6))) for _ in range(400)]
    words += ["a" * n for n in range(1, 21)] + ["b" * 8 + "a" * n for n in range(1, 9)]
    return [" ".join(rng.choices(words, k=rng.randint(0, 9))) for _ in range(n)]


def one_place(keys: np.ndarray) -> np.ndarray:
    return np.full(keys.shape[1], 5)


@pytest.mark.parametrize("mixed", [word_table._mixed, one_place])  # all words in the same slot
def test_words_have_their_ids(monkeypatch: pytest.MonkeyPatch, mixed: Callable) -> None:
    monkeypatch.setattr(word_table, "_mixed", mixed)
    cutter = Cutter()
    table = WordTable(cutter)
    lines = some_lines(500)
    for _ in range(2):
        assert rows_of(table, lines) == expected(lines)
    assert len(cutter.asked) == len(set(cutter.asked))  # each word is tokenized once


@pytest.mark.parametrize("at_once", [1, 30, 1000])
def test_lines_do_not_depend_on_their_neighbours(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(word_table, "CHARACTERS_AT_ONCE", at_once)
    lines = some_lines(100)
    assert rows_of(WordTable(Cutter()), lines) == expected(lines)


def test_spaces_are_not_words() -> None:
    lines = ["", " ", "a", "  a   b ", "a\tb  c", "\0a\0", ""]
    wanted = expected(["", "", "a", "a b", "a b c", "a", ""])
    assert rows_of(WordTable(Cutter()), lines) == wanted
    assert rows_of(WordTable(Cutter()), [""]) == [[]]
    assert WordTable(Cutter()).encode([]).n_rows == 0


def test_a_full_table_is_cleared_and_one_that_is_too_small_grows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(word_table, "FEWEST_SLOTS", 64)
    monkeypatch.setattr(word_table, "CHARACTERS_AT_ONCE", 50)
    cutter = Cutter()
    table = WordTable(cutter)
    lines = some_lines(300)
    assert rows_of(table, lines) == expected(lines)
    assert len(cutter.asked) > len(set(cutter.asked))
    assert len(table._row_at) == 64
    long = [" ".join(lines)]
    assert rows_of(table, long) == expected(long)
    assert len(table._row_at) > 64


def test_an_interruption_leaves_nothing_behind() -> None:
    cutter = Cutter()

    def cut(words: bytes) -> Ragged:
        if b"stop" in words:
            raise KeyboardInterrupt
        return cutter(words)

    table = WordTable(cut)
    assert rows_of(table, ["a b"]) == expected(["a b"])
    with pytest.raises(KeyboardInterrupt):
        table.encode(["c stop d"])
    assert rows_of(table, ["d c b a"]) == expected(["d c b a"])


def test_ids_are_always_64_bit() -> None:
    table = WordTable(Cutter())
    assert table.encode(["a bcd"]).values.dtype == np.int64
    assert table.encode([]).values.dtype == np.int64
