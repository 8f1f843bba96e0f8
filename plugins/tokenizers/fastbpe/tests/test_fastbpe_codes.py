"""Codes: splitting words, compared with subword-nmt; reading, learning and counting codes."""

from __future__ import annotations

import io
import os
import random
from collections import Counter
from collections.abc import Iterable

import pytest
from xlm_fastbpe.codes import Codes, Pair, read_codes, written_codes
from xlm_fastbpe.learning import count_tokens, learn

from xlm_plugins import DataError

SOME = {("l", "o"): 9, ("e", "r</w>"): 8, ("lo", "w</w>"): 7, ("w", "er</w>"): 6, ("w", "e"): 5}


def some_words(n: int, seed: int = 0) -> Counter[str]:
    """Words of a few letters, so that all pairs of letters occur, at the end and elsewhere."""
    rng = random.Random(seed)
    return Counter("".join(rng.choices("abcdeé", k=rng.randint(1, 9))) for _ in range(n))


def spaced(words: Iterable[str]) -> bytes:
    return "".join(f"{word} " for word in words).encode()


def subword_nmt(merges: Iterable[Pair], vocabulary: set[str] | None = None):
    apply_bpe = pytest.importorskip("subword_nmt.apply_bpe")
    codes = "#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in merges)
    return apply_bpe.BPE(io.StringIO(codes), vocab=vocabulary)


def test_merges_are_applied_in_their_order() -> None:
    codes = Codes(SOME)
    assert codes.split("low") == ["low"]
    assert codes.split("lower") == ["lo@@", "wer"]
    assert codes.split("lo") == ["l@@", "o"]  # o at the end of a word is another symbol
    assert codes.split("wewe") == ["we@@", "w@@", "e"]


def test_a_character_without_merges_is_a_piece() -> None:
    codes = Codes(SOME)
    assert codes.split("loλlow") == ["lo@@", "λ@@", "low"]
    assert codes.split("loλ") == ["lo@@", "λ"]
    assert codes.split("λ") == ["λ"]
    assert codes.split("𓀀é") == ["𓀀@@", "é"]


def test_pieces_outside_the_vocabulary_are_split() -> None:
    ids = {form: number for number, form in enumerate(["l@@", "o@@", "w", "wer", "lo@@"])}
    assert Codes(SOME, ids).split("low") == ["lo@@", "w"]
    del ids["lo@@"]
    assert Codes(SOME, ids).split("lower") == ["l@@", "o@@", "wer"]
    assert Codes(SOME, ids).split("we") == ["w@@", "e"]  # neither is known, nor can be split
    words = ["low", "we", "lower", "w", "λw", "wλ", "o", "rλe"]
    wanted = [[0, 1, 2], [77, 77], [0, 1, 3], [2], [77, 2], [77, 77], [77], [77, 77, 77]]
    codes = Codes(SOME, ids, unknown=77)
    rows = codes.ids_of(spaced(words))
    assert [row.tolist() for row in rows.rows] == wanted
    assert [[ids.get(p, 77) for p in codes.split(word)] for word in words] == wanted
    assert codes.ids_of(b"").n_rows == 0


@pytest.mark.parametrize("at_once", [0, 20, 10_000])
def test_words_do_not_depend_on_their_neighbours(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    merges, tokens = learn(some_words(2000), 60)
    ids = {token: number for number, token in enumerate(tokens)}
    codes = Codes(merges, ids, unknown=len(ids))
    words = [*some_words(40, seed=1), "λ", "aλ", "λa", "aλλ", "a\u00a0b", "\U000f0000"]
    monkeypatch.setattr("xlm_fastbpe.codes.BYTES_AT_ONCE", at_once)
    rows = codes.ids_of(spaced(words))
    alone = [[ids.get(piece, len(ids)) for piece in codes.split(word)] for word in words]
    assert [row.tolist() for row in rows.rows] == alone


def test_the_libraries_threads_are_left_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    for before in ("true", None):
        monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
        if before:
            monkeypatch.setenv("TOKENIZERS_PARALLELISM", before)
        Codes(SOME, {"l@@": 0}).ids_of(b"low ")
        assert os.environ.get("TOKENIZERS_PARALLELISM") == before


@pytest.mark.parametrize("n_tokens", [20, 60, 300])
@pytest.mark.parametrize("restricted", [False, True])
def test_words_are_split_as_by_subword_nmt(n_tokens: int, restricted: bool) -> None:
    merges, tokens = learn(some_words(2000), n_tokens)
    frequent = {token for token, count in tokens.items() if count > 40}
    ids = {token: number for number, token in enumerate(sorted(frequent))} if restricted else None
    codes = Codes(merges, ids)
    theirs = subword_nmt(merges, set(frequent) if restricted else None)
    for word in [*some_words(1500, seed=1), "abλcd", "λ", "aλ", "λa", "ééé", "<unk>", "a@@", "@@"]:
        assert " ".join(codes.split(word)) == theirs.process_line(word)


def test_codes_of_subword_nmt_are_read_and_mean_the_same() -> None:
    learn_bpe = pytest.importorskip("subword_nmt.learn_bpe")
    words = some_words(800)
    written = io.StringIO()
    lines = io.StringIO("".join(f"{word} {count}\n" for word, count in words.items()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learn_bpe, "tqdm", lambda numbers: numbers)
        learn_bpe.learn_bpe(lines, written, 60, is_dict=True)
    merges = read_codes(written.getvalue(), "codes")
    assert len(merges) == 60
    theirs = subword_nmt(merges)
    codes = Codes(merges)
    assert [" ".join(codes.split(w)) for w in words] == [theirs.process_line(w) for w in words]


def test_a_file_of_codes_is_read_back() -> None:
    written = written_codes(SOME)
    assert written.splitlines()[2] == "lo w</w> 7"
    assert list(read_codes(written, "x").items()) == list(SOME.items())
    again = "l o 9\r\nw e 8\n\nl o 1\n"  # the first of two counts wins, empty lines are skipped
    assert read_codes(again, "x") == {("l", "o"): 9, ("w", "e"): 8}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("l o 9\nlow 8\n", "line 2.*'low 8'"),
        ("l o nine", "line 1"),
        ("l o 9 9", "line 1"),
        ("l  9", "line 1"),
        ("", "contains no codes"),
        ("#version: 0.2\n", "contains no codes"),
        ("the 4711\n", "line 1"),  # a vocabulary
        ("#version: 0.2\nt h</w> 4711\n", "line 2"),
    ],
)
def test_other_files_are_refused(text: str, what: str) -> None:
    with pytest.raises(DataError, match=rf"my\.codes.*{what}") as error:
        read_codes(text, "my.codes")
    assert "t h</w> 4711" in error.value.expected


def test_learning_takes_the_most_frequent_pair_first() -> None:
    merges, _ = learn({"abab": 3, "ab": 2, "cab": 1}, 9)
    assert list(merges) == [("a", "b</w>"), ("a", "b"), ("ab", "ab</w>")]
    # The count of a merge is how often it was applied: once in every "abab" for the last.
    assert list(merges.values()) == [6, 3, 3]


def test_learning_yields_the_requested_number_of_tokens_and_counts_them() -> None:
    words = some_words(3000)
    merges, tokens = learn(words, 200)
    assert len(tokens) == 200
    found = count_tokens(Codes(merges), words)
    assert {token: n for token, n in tokens.items() if n} == found
    forms = {form for c in "abcdeé" for form in (c, f"{c}@@")}
    assert forms <= set(tokens)  # so that words of these letters are never unknown


def test_learning_is_the_same_each_time() -> None:
    one, other = (learn(some_words(1500), 150) for _ in range(2))
    assert one == other
    assert list(one[0]) == list(other[0])


def test_a_character_that_occurs_once_is_not_learned() -> None:
    merges, tokens = learn({"abab": 3, "λa": 1}, 6)
    assert not [token for token in tokens if "λ" in token]
    assert Codes(merges).split("λa") == ["λ@@", "a"]


def test_too_small_a_vocabulary_names_one_that_works() -> None:
    words = some_words(300)
    with pytest.raises(DataError, match="of 26 ") as error:
        learn(words, 12)
    works = int(error.value.remedy.split()[1].strip(","))
    assert len(learn(words, works - 14)[1]) == works - 14
    with pytest.raises(DataError, match="no text"):
        learn({}, 100)
    with pytest.raises(DataError, match="no pair of letters"):
        learn({"a": 5, "b": 9}, 100)
