"""The layout of one text or two, against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest

from xlm_plugins.core.framing import encode_texts, frame_texts
from xlm_plugins.core.ragged import Ragged
from xlm_plugins.testing.words import WordTokenizer

WORDS = "abcdefghijkl"
TOKENIZER = WordTokenizer(WORDS)
EOS = TOKENIZER.special("eos")


def rows_of(rows: Ragged) -> list[list[int]]:
    return [row.tolist() for row in rows.rows]


def ids(text: str) -> list[int]:
    return TOKENIZER.encode_batch([text]).rows[0].tolist()


def text(n_words: int, first: int = 0) -> str:
    return " ".join(WORDS[(first + number) % len(WORDS)] for number in range(n_words))


def test_one_text_stands_between_two_ends() -> None:
    sides, n_cut = encode_texts(TOKENIZER, [["a b c", "", "d"]], 100)
    expected = [[EOS, *ids(one), EOS] for one in ("a b c", "", "d")]
    assert rows_of(frame_texts(sides, EOS)) == expected
    assert n_cut == 0


def test_two_texts_have_three_ends() -> None:
    firsts, seconds = ["a b", "", "c", ""], ["d", "e f g", "", ""]
    sides, n_cut = encode_texts(TOKENIZER, [firsts, seconds], 100)
    expected = [
        [EOS, *ids(one), EOS, *ids(other), EOS] for one, other in zip(firsts, seconds, strict=True)
    ]
    assert rows_of(frame_texts(sides, EOS)) == expected
    assert n_cut == 0


def test_one_text_loses_its_end() -> None:
    sides, n_cut = encode_texts(TOKENIZER, [[text(9), text(8), text(2)]], 10)
    assert rows_of(sides[0]) == [ids(text(9))[:8], ids(text(8)), ids(text(2))]
    assert n_cut == 1


@pytest.mark.parametrize("longest", [4, 5, 9, 10])
def test_of_two_texts_the_longer_one_is_cut_first(longest: int) -> None:
    lengths = [(n, m) for n in range(8) for m in range(8)]
    columns = [[text(n) for n, _ in lengths], [text(m, 5) for _, m in lengths]]
    sides, n_cut = encode_texts(TOKENIZER, columns, longest)
    room = longest - 3
    for row, (n, m) in enumerate(lengths):
        kept_n, kept_m = n, m
        while kept_n + kept_m > room:  # the plain definition: a token at a time, off the longer
            if kept_n > kept_m:
                kept_n -= 1
            else:
                kept_m -= 1
        assert sides[0].rows[row].tolist() == ids(columns[0][row])[:kept_n]
        assert sides[1].rows[row].tolist() == ids(columns[1][row])[:kept_m]
    assert n_cut == sum(n + m > room for n, m in lengths)
    framed = frame_texts(sides, EOS)
    assert framed.lengths.max() == longest
    assert np.all(framed.values[framed.offsets[1:] - 1] == EOS)
