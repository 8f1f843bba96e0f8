"""Word vectors from a file: fastText's text (``.vec``) and binary (``.bin``), and GloVe's text.

A token is looked up as it is written, which suits vectors learnt on the same pieces (``th@@``,
``▁the``), and then as the word that it stands for: SentencePiece's ``▁word`` is ``word``.  A binary
could also provide vectors of unseen words, from their n-grams; for pieces of words these did harm
(docs/migrating.md), so they are not used.

Files may be larger than memory: only the requested rows of a text file are kept, and only those of
a binary are read.
"""

from __future__ import annotations

import mmap
import struct
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xlm_plugins.core.errors import DataError
from xlm_plugins.data.prepare.lines import lines

MAGIC = 793712314
"""The first number in a fastText binary."""

_VERSIONS = (11, 12)
_SUPERVISED = 3
_WORD_BEGINS = "▁"
_END_OF_SENTENCE = "</s>"
_N_EXAMPLES = 4
_EXPECTED = "fastText or GloVe vectors as text (a word and its vector per line), or fastText's .bin"


@dataclass(frozen=True)
class FoundVectors:
    """The tokens that a file has vectors for.

    :param rows: ids of tokens. Shape: (n,)
    :param vectors: float32. Shape: (n, dim)
    """

    rows: np.ndarray
    vectors: np.ndarray


class WordVectors(ABC):
    """A file of word vectors; only its beginning has been read."""

    path: Path
    dim: int
    """Width of the vectors."""

    def find(self, tokens: Sequence[str]) -> FoundVectors:
        """Look up the vector of every token.

        :param tokens: written forms, in order of id.
        :raises DataError: the file is damaged, or has none of the words.
        """
        examples, known = self._read({text for token in tokens for text in _spellings(token)})
        if all(map(_is_mark, known)):
            raise _nothing_found(self.path, tokens, examples)
        found = {}
        for row, token in enumerate(tokens):
            vector = next((known[text] for text in _spellings(token) if text in known), None)
            if vector is not None:
                found[row] = vector
        return FoundVectors(np.array([*found]), np.stack([*found.values()]))

    @abstractmethod
    def _read(self, wanted: Collection[str]) -> tuple[list[str], Mapping[str, np.ndarray]]:
        """The file's first words, and the vectors of the wanted ones."""


def open_word_vectors(path: Path) -> WordVectors:
    """Find out the kind of file and the width of its vectors.

    :raises DataError: there is no such file, or it holds no word vectors, or quantized ones.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", expected=_EXPECTED) from error
    if not start:
        raise DataError(f"{path} is empty", expected=_EXPECTED)
    return _Binary(path) if start == struct.pack("<i", MAGIC) else _Text(path)


class _Text(WordVectors):
    """``word v1 .. vd`` per line, with or without a header ``n d``; compressed or not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        first = next(lines(path, "replace")).rstrip().split(" ")
        self.n_words: int | None = None
        if len(first) == 2 and all(field.isdecimal() for field in first):
            self.n_words, self.dim = map(int, first)
        else:
            self.dim = len(first) - 1
            if self.dim < 2 or not all(map(_is_number, first[1:])):
                raise DataError(f"{path} holds no word vectors", expected=_EXPECTED)
        if not self.dim:
            raise DataError(f"{path} declares vectors of width 0", expected=_EXPECTED)

    def _read(self, wanted: Collection[str]) -> tuple[list[str], Mapping[str, np.ndarray]]:
        first_line = 1 if self.n_words is None else 2
        examples: list[str] = []
        known: dict[str, np.ndarray] = {}
        number = 0
        for number, line in enumerate(lines(self.path, "replace"), 1):
            if number < first_line:
                continue
            word, _, numbers = line.rstrip().partition(" ")
            if len(examples) < _N_EXAMPLES:
                examples.append(word)
            if word in wanted and word not in known:
                fields = numbers.split(" ")
                if len(fields) <= self.dim:  # more: the first part of a word with spaces
                    known[word] = self._vector(number, fields)
        n_read = number - first_line + 1
        if self.n_words is not None and n_read < self.n_words:
            raise DataError(
                f"{self.path} has only {n_read:,} of the {self.n_words:,} words in its first line",
                remedy="the file is truncated: download it again",
            )
        return examples, known

    def _vector(self, number: int, fields: list[str]) -> np.ndarray:
        where = f"{self.path}, line {number}"
        if len(fields) < self.dim:
            raise DataError(
                f"{where}: {len(fields)} numbers, not {self.dim}",
                remedy="the file is truncated or damaged: download it again",
            )
        try:
            vector = np.array(fields, dtype=np.float32)
        except ValueError as error:
            raise DataError(f"{where}: {error}", expected=_EXPECTED) from error
        if not np.isfinite(vector).all():
            raise DataError(f"{where}: not all numbers are finite")
        return vector


class _Binary(WordVectors):
    """fastText's ``.bin``: arguments, dictionary, input matrix, output matrix.

    The input matrix has one row per word, followed by one for each of ``bucket`` hashes of the
    words' n-grams of ``shortest`` to ``longest`` characters.  A word's vector is the mean of its
    own row and those of its n-grams (Bojanowski et al., arXiv 1607.04606, section 3.2).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            self.bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.place = 4
        version, self.dim, *_ = self._take("<2i")
        if version not in _VERSIONS:
            raise DataError(
                f"{path} is fastText's binary format {version}",
                expected=f"format {' or '.join(map(str, _VERSIONS))}",
            )
        rest = self._take("<11id")
        model, self.bucket, self.shortest, self.longest = rest[6:10]
        if model == _SUPERVISED and version == 11:
            self.longest = 0  # as fastText does: such models had no n-grams

    def _read(self, wanted: Collection[str]) -> tuple[list[str], Mapping[str, np.ndarray]]:
        examples, index_of = self._dictionary(wanted)
        (is_quantised,) = self._take("<?")
        if is_quantised:
            raise DataError(
                f"{self.path} is quantized (.ftz): its vectors are only approximations",
                expected="the .bin or .vec file that it was made from",
            )
        self.matrix, *shape = self._matrix()
        self._take("<?")
        self._matrix()  # the output matrix, which only a complete file has
        n_rows = self.n_words + (self.bucket if self.longest > 0 else 0)
        if shape[0] < n_rows or shape[1] != self.dim:
            raise self._damaged(f"a matrix is {shape}, not {[n_rows, self.dim]}")
        rows = {word: [row, *self._n_grams(word)] for word, row in index_of.items()}
        return examples, self._means(rows)

    def _n_grams(self, word: str) -> list[int]:
        """The rows of a word's n-grams."""
        if word == _END_OF_SENTENCE or self.longest < 1:
            return []
        hashes = n_gram_hashes(word, self.shortest, self.longest)
        return [self.n_words + value % self.bucket for value in hashes]

    def _means(self, rows_of: Mapping[str, list[int]]) -> dict[str, np.ndarray]:
        """The mean of each word's rows, which are read, not mapped, since they are far apart."""
        means = {}
        size = 4 * self.dim
        with self.path.open("rb", buffering=0) as file:
            for word, rows in rows_of.items():
                values = bytearray()
                for row in rows:
                    file.seek(self.matrix + row * size)
                    values += file.read(size)
                means[word] = np.frombuffer(values, "<f4").reshape(len(rows), -1).mean(0)
                if not np.isfinite(means[word]).all():
                    raise self._damaged("not all numbers are finite")
        return means

    def _dictionary(self, wanted: Collection[str]) -> tuple[list[str], dict[str, int]]:
        """The first words, and the index of each wanted one; labels follow the words."""
        n_entries, self.n_words, _, _, n_pruned = self._take("<3i2q")
        examples: list[str] = []
        index_of: dict[str, int] = {}
        for index in range(n_entries):
            end = self.bytes.find(b"\0", self.place)
            if end < 0:
                raise self._damaged("its dictionary is truncated")
            if index < self.n_words:
                word = self.bytes[self.place : end].decode("utf-8", "replace")
                if index < _N_EXAMPLES:
                    examples.append(word)
                if word in wanted:
                    index_of.setdefault(word, index)
            self.place = end + 1 + struct.calcsize("<qb")  # its count and its kind
        self.place += max(n_pruned, 0) * struct.calcsize("<2i")
        return examples, index_of

    def _matrix(self) -> tuple[int, int, int]:
        """Skip a matrix: returns where its numbers start, and its shape."""
        n_rows, n_columns = self._take("<2q")
        start, size = self.place, 4 * n_rows * n_columns
        if min(n_rows, n_columns) < 0 or start + size > len(self.bytes):
            raise self._damaged("a matrix is truncated")
        self.place += size
        return start, n_rows, n_columns

    def _take(self, form: str) -> tuple[Any, ...]:
        try:
            values = struct.unpack_from(form, self.bytes, self.place)
        except struct.error as error:
            raise self._damaged("it is truncated") from error
        self.place += struct.calcsize(form)
        return values

    def _damaged(self, what: str) -> DataError:
        return DataError(
            f"{self.path} is a damaged fastText binary: {what}",
            remedy="download the file again",
        )


def n_gram_hashes(word: str, shortest: int, longest: int) -> list[int]:
    """The hashes of the n-grams of ``<word>``, in fastText's order.

    32-bit FNV-1a over UTF-8 bytes, each taken as a signed number, as in fastText.

    :param shortest, longest: characters of an n-gram; a bracket alone does not count as one.
    """
    characters = [character.encode("utf-8") for character in f"<{word}>"]
    found = []
    for start in range(len(characters)):
        value = 2166136261
        for end in range(start + 1, min(start + longest, len(characters)) + 1):
            for byte in characters[end - 1]:
                signed = byte | 0xFFFFFF00 if byte & 0x80 else byte
                value = (value ^ signed) * 16777619 & 0xFFFFFFFF
            is_bracket = end == start + 1 and (start == 0 or end == len(characters))
            if end - start >= shortest and not is_bracket:
                found.append(value)
    return found


def _spellings(token: str) -> tuple[str, ...]:
    """How a file may spell a token, best first."""
    word = token.removeprefix(_WORD_BEGINS)
    return (token, word) if word and word != token else (token,)


def _is_mark(token: str) -> bool:
    """Whether a token does not stand for text: ``<pad>``, ``</s>``, ``<0xE4>``."""
    return len(token) > 2 and token[0] == "<" and token[-1] == ">"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _nothing_found(path: Path, tokens: Sequence[str], examples: Sequence[str]) -> DataError:
    longest = sorted((token for token in tokens if not _is_mark(token)), key=len)[-_N_EXAMPLES:]
    return DataError(
        f"{path} has none of the vocabulary's {len(tokens):,} tokens; they look like "
        f"{', '.join(longest)}, its words like {', '.join(examples)}",
        expected="vectors of these tokens, or of words in the languages of the data",
    )
