"""The layout of one text or two, against a plain loop."""

from __future__ import annotations

import pytest

from xlm_plugins.contracts.framing import encode_texts
from xlm_plugins.contracts.ragged import Ragged
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
    rows, n_cut = encode_texts(TOKENIZER, [["a b c", "", "d"]], 100)
    assert rows_of(rows) == [[EOS, *ids(one), EOS] for one in ("a b c", "", "d")]
    assert n_cut == 0


def test_two_texts_have_three_ends() -> None:
    firsts, seconds = ["a b", "", "c", ""], ["d", "e f g", "", ""]
    rows, n_cut = encode_texts(TOKENIZER, [firsts, seconds], 100)
    assert rows_of(rows) == [
        [EOS, *ids(one), EOS, *ids(other), EOS] for one, other in zip(firsts, seconds, strict=True)
    ]
    assert n_cut == 0


def test_with_bos_the_layout_is_robertas() -> None:
    tokenizer = WordTokenizer(WORDS)
    tokenizer.begin_role = "bos"
    bos = tokenizer.special("bos")
    rows, _ = encode_texts(tokenizer, [["a b"], ["c"]], 100)
    assert rows_of(rows) == [[bos, *ids("a b"), EOS, EOS, *ids("c"), EOS]]
    rows, n_cut = encode_texts(tokenizer, [["a b c", "d"]], 4)
    assert rows_of(rows) == [[bos, *ids("a b"), EOS], [bos, *ids("d"), EOS]]
    assert n_cut == 1
    rows, n_cut = encode_texts(tokenizer, [["a b c"], ["d"]], 6)
    assert rows_of(rows) == [[bos, *ids("a"), EOS, EOS, *ids("d"), EOS]]
    assert tokenizer.vocabulary().frame == tokenizer.frame == (bos, EOS)


def test_one_text_is_truncated_at_its_end() -> None:
    rows, n_cut = encode_texts(TOKENIZER, [[text(9), text(8), text(2)]], 10)
    kept = [ids(text(9))[:8], ids(text(8)), ids(text(2))]
    assert rows_of(rows) == [[EOS, *row, EOS] for row in kept]
    assert n_cut == 1


@pytest.mark.parametrize("longest", [4, 5, 9, 10])
def test_of_two_texts_the_longer_one_is_truncated_first(longest: int) -> None:
    lengths = [(n, m) for n in range(8) for m in range(8)]
    columns = [[text(n) for n, _ in lengths], [text(m, 5) for _, m in lengths]]
    rows, n_cut = encode_texts(TOKENIZER, columns, longest)
    room = longest - 3
    for row, (n, m) in enumerate(lengths):
        kept_n, kept_m = n, m
        while kept_n + kept_m > room:  # the definition: one token at a time, from the longer one
            if kept_n > kept_m:
                kept_n -= 1
            else:
                kept_m -= 1
        first, second = ids(columns[0][row])[:kept_n], ids(columns[1][row])[:kept_m]
        assert rows.rows[row].tolist() == [EOS, *first, EOS, *second, EOS]
    assert n_cut == sum(n + m > room for n, m in lengths)
    assert rows.lengths.max() == longest
