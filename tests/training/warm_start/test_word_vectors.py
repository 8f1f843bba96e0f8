"""Word vectors from files, which the tests write in both of fastText's forms."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xlm_plugins.core.errors import DataError
from xlm_plugins.training.warm_start.word_vectors import (
    MAGIC,
    FoundVectors,
    n_gram_hashes,
    open_word_vectors,
)

WORDS = {"</s>": [9.0, 9.0, 9.0], "king": [1.0, 2.0, 3.0], "roi": [-1.0, 0.5, 0.25]}
BUCKET = 7


def text_of(words: Mapping[str, Sequence[float]] = WORDS, header: bool = True) -> str:
    rows = [f"{word} {' '.join(map(str, vector))} \n" for word, vector in words.items()]
    dim = len(next(iter(words.values())))
    return (f"{len(words)} {dim}\n" if header else "") + "".join(rows)


def binary_of(
    words: Mapping[str, Sequence[float]] = WORDS,
    *,
    longest: int = 4,
    version: int = 12,
    model: int = 2,
    quantised: bool = False,
) -> bytes:
    """A file as fastText writes it, with one label; the row of n-gram hash h is (h, h, h)."""
    arguments = (5, 5, 1, 5, 1, 1, model, BUCKET, 3, longest, 100)
    head = struct.pack("<iii11id", MAGIC, version, 3, *arguments, 1e-4)
    head += struct.pack("<3i2q", len(words) + 1, len(words), 1, 100, -1)
    for word, kind in [*((word, 0) for word in words), ("__label__x", 1)]:
        head += word.encode() + b"\0" + struct.pack("<qb", 10, kind)
    rows = [*words.values(), *([float(h)] * 3 for h in range(BUCKET))]
    matrices = [np.array(rows, "<f4"), np.zeros((len(words), 3), "<f4")]
    return head + b"".join(
        struct.pack("<?2q", quantised, *matrix.shape) + matrix.tobytes() for matrix in matrices
    )


def found_in(path: Path, content: str | bytes, tokens: Sequence[str]) -> FoundVectors:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return open_word_vectors(path).find(tokens)


@pytest.mark.parametrize("header", [True, False])
def test_text_with_and_without_a_header(tmp_path: Path, header: bool) -> None:
    found = found_in(tmp_path / "a.vec", text_of(header=header), ["x", "roi", "queen", "king"])
    assert found.rows.tolist() == [1, 3]
    assert found.vectors.dtype == np.float32
    assert found.vectors.tolist() == [WORDS["roi"], WORDS["king"]]


def test_text_may_be_compressed(tmp_path: Path) -> None:
    compressed = gzip.compress(text_of().encode())
    assert found_in(tmp_path / "a.vec.gz", compressed, ["king"]).rows.tolist() == [0]


def test_a_token_is_itself_before_it_is_the_word_that_it_writes(tmp_path: Path) -> None:
    """``▁king`` is ``king``; a piece of fastBPE's that goes on is no word."""
    tokens = ["▁king", "king", "king@@", "▁", "</s>", "<pad>"]
    found = found_in(tmp_path / "a.vec", text_of(), tokens)
    assert found.rows.tolist() == [0, 1, 4]
    assert found.vectors.tolist() == [WORDS["king"], WORDS["king"], WORDS["</s>"]]
    pieces = WORDS | {"▁king": [4.0, 4.0, 4.0]}
    found = found_in(tmp_path / "a.vec", text_of(pieces), tokens)
    assert found.vectors.tolist() == [[4.0, 4.0, 4.0], WORDS["king"], WORDS["</s>"]]


def test_a_word_with_spaces_is_not_its_first_part(tmp_path: Path) -> None:
    """GloVe has such words; and what is there twice counts once."""
    text = text_of({"king size": [5, 5, 5], **WORDS, "king": [1, 2, 3]}) + "king 6 6 6\n"
    assert found_in(tmp_path / "a.vec", text, ["king"]).vectors.tolist() == [WORDS["king"]]


def test_the_hashes_of_n_grams_are_fasttexts() -> None:
    """Against FNV-1a's published values where bytes are ASCII: of "a" and "foobar" (no <, >)."""

    def fnv(data: bytes) -> int:
        value = 0x811C9DC5
        for byte in data:
            value = (value ^ byte) * 0x01000193 % 2**32
        return value

    assert (fnv(b"a"), fnv(b"foobar")) == (0xE40C292C, 0xBF9CF968)
    assert n_gram_hashes("ab", 3, 4) == [fnv(b"<ab"), fnv(b"<ab>"), fnv(b"ab>")]
    assert n_gram_hashes("ab", 1, 1) == [fnv(b"a"), fnv(b"b")]  # a bracket alone is none
    assert n_gram_hashes("", 3, 6) == []


def test_bytes_beyond_ascii_are_hashed_with_their_sign() -> None:
    """The rows that fastText 0.9.2 computes for a model with 5,000 buckets."""
    assert [value % 5000 for value in n_gram_hashes("é", 3, 6)] == [1231]
    assert [value % 5000 for value in n_gram_hashes("日本", 3, 6)] == [3587, 3759, 1157]


def test_a_binarys_vector_is_the_mean_of_word_and_n_grams(tmp_path: Path) -> None:
    found = found_in(tmp_path / "a.bin", binary_of(), ["</s>", "▁king", "queen", "th@@", "<pad>"])
    assert found.rows.tolist() == [0, 1]
    assert found.vectors[0].tolist() == WORDS["</s>"]  # the one word without n-grams
    n_grams = [[float(value % BUCKET)] * 3 for value in n_gram_hashes("king", 3, 4)]
    assert len(n_grams) == 7
    assert np.allclose(found.vectors[1], np.mean([WORDS["king"], *n_grams], axis=0))


@pytest.mark.parametrize("options", [{"longest": 0}, {"version": 11, "model": 3}])
def test_a_binary_without_n_grams(tmp_path: Path, options: dict[str, Any]) -> None:
    found = found_in(tmp_path / "a.bin", binary_of(**options), ["king", "queen", "__label__x"])
    assert found.rows.tolist() == [0]
    assert found.vectors.tolist() == [WORDS["king"]]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.4, 0.7, 0.99])
def test_a_truncated_binary_is_refused(tmp_path: Path, share: float) -> None:
    whole = binary_of()
    with pytest.raises(DataError, match=r"damaged fastText binary: .* truncated\n"):
        found_in(tmp_path / "a.bin", whole[: max(6, int(share * len(whole)))], ["king"])


def test_a_quantized_binary_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"quantized .*\n.*the .bin or .vec file"):
        found_in(tmp_path / "a.ftz", binary_of(quantised=True), ["king"])


def test_both_spellings_are_shown_if_nothing_is_found(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"2 tokens; .* ▁der, its words like </s>, king, roi"):
        found_in(tmp_path / "a.vec", text_of(), ["</s>", "▁der"])
    with pytest.raises(DataError, match="its words like </s>, king, roi"):
        found_in(tmp_path / "a.bin", binary_of(), ["</s>", "▁der"])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"\x89PNG\r\n\x1a\n\0\0", "holds no word vectors"),
        (b"In the beginning God created\n", "holds no word vectors"),
        (b"3 0\nking\n", "vectors of width 0"),
        (b"3 3\nking 1 2 3\nroi 1 2 3\n", r"has only 2 of the 3 words"),
        (b"2 3\na 1 2 3\nking 1 2\n", r"line 3: 2 numbers, not 3"),
        (b"2 3\nking 1 x 3\na 1 2 3\n", r"line 2: could not convert"),
        (b"2 3\nking 1 nan 3\na 1 2 3\n", r"line 2: not all numbers are finite"),
        (binary_of(version=9), r"format 9\n.*format 11 or 12"),
        (binary_of({"king": [1.0, float("inf"), 1.0]}), "binary: not all numbers are finite"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, told: str) -> None:
    with pytest.raises(DataError, match=told):
        found_in(tmp_path / "a.vec", content, ["king"])


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        open_word_vectors(tmp_path / "gone.vec")
