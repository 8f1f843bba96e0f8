"""Reading text: line by line in bounded memory, every fault told by file and line.

Lines end at ``\\n`` and nowhere else, so that the sides of a parallel text cannot drift apart at
a stray U+2028.  Blank lines are dropped, and a pair goes when one of its sides is blank.
"""

from __future__ import annotations

import gzip
import itertools
import lzma
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from io import BufferedIOBase, BufferedReader, RawIOBase
from pathlib import Path
from typing import Any, BinaryIO, cast

import zstandard

from xlm_plugins.core.errors import DataError
from xlm_plugins.data.prepare.sources import StreamSource

LONGEST_LINE = 16 * 2**20
_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True)
class TextCount:
    """What a stream's text amounts to.

    :param n_lines: lines, or line pairs, as they stand in the files.
    :param n_sentences: of them, those that are kept.
    :param n_characters: characters of the kept text, for each language.
    """

    n_lines: int
    n_sentences: int
    n_characters: tuple[int, ...]

    @property
    def n_blank(self) -> int:
        """Lines, or pairs, dropped because they were blank or one side was."""
        return self.n_lines - self.n_sentences


def lines(path: Path, errors: str) -> Iterator[str]:
    """The lines of a file, without their ends.

    :param errors: ``strict`` refuses bytes that are not UTF-8, ``replace`` puts U+FFFD there.
    :raises DataError: not UTF-8, a damaged archive, no text at all, a line without end.
    """
    any_text = False
    with _opened(path) as file:
        for number, line in enumerate(_raw_lines(file, path), 1):
            try:
                text = line.decode("utf-8", errors)
            except UnicodeDecodeError as error:
                raise _not_utf8(path, number, line, error) from error
            if number == 1:
                text = text.removeprefix(_BYTE_ORDER_MARK)
            any_text = any_text or not _is_blank(text)
            yield text
    if not any_text:
        raise DataError(
            f"{path} is empty, or has only blank lines",
            remedy="remove the file, or fill it with one sentence a line",
        )


def sentences(source: StreamSource, errors: str) -> Iterator[tuple[str, ...]]:
    """The stream's sentences, or pairs: one text for each language, none of them blank."""
    return (row for row in zip(*_sides(source, errors), strict=True) if not _any_blank(row))


def count_text(source: StreamSource, errors: str) -> TextCount:
    """Read a stream once from end to end, and refuse it now rather than half-way.

    :raises DataError: as `lines`, or the sides of a parallel text differ in length.
    """
    n_sentences = 0
    n_lines = [0] * len(source.languages)
    n_characters = [0] * len(source.languages)
    for row in itertools.zip_longest(*_sides(source, errors)):
        if None in row:
            n_lines = [n + (text is not None) for n, text in zip(n_lines, row, strict=True)]
            continue
        n_lines = [n + 1 for n in n_lines]
        if not _any_blank(row):
            n_sentences += 1
            n_characters = [n + len(text) for n, text in zip(n_characters, row, strict=True)]
    if len(set(n_lines)) > 1:
        sides = zip(n_lines, source.files, strict=True)
        told = " and ".join(f"{n:,} lines in {', '.join(map(str, files))}" for n, files in sides)
        raise DataError(
            f"the sides of {source.name} differ in length: {told}",
            expected="parallel files that go line by line",
        )
    if not n_sentences:
        raise DataError(f"{source.name} has no pair of lines with text on both sides")
    return TextCount(n_lines[0], n_sentences, tuple(n_characters))


def _sides(source: StreamSource, errors: str) -> list[Iterator[str]]:
    return [
        itertools.chain.from_iterable(lines(path, errors) for path in files)
        for files in source.files
    ]


def _is_blank(text: str) -> bool:
    return not text or text.isspace()


def _any_blank(row: tuple[str, ...]) -> bool:
    return any(_is_blank(text) for text in row)


def _raw_lines(file: BinaryIO, path: Path) -> Iterator[bytes]:
    number = 0
    try:
        for number, line in enumerate(iter(partial(file.readline, LONGEST_LINE), b""), 1):
            if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
                raise DataError(
                    f"{path}, line {number}: longer than {LONGEST_LINE:,} bytes",
                    expected="text with one sentence a line",
                )
            yield line.rstrip(b"\r\n")
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
        raise DataError(
            f"{path} cannot be read beyond line {number}: {error}",
            remedy="the file is damaged or incomplete: fetch or compress it again",
        ) from error


def _not_utf8(path: Path, number: int, line: bytes, error: UnicodeDecodeError) -> DataError:
    return DataError(
        f"{path}, line {number}: byte {error.start + 1} of the line is "
        f"0x{line[error.start]:02x}, which is not UTF-8 there",
        expected="text in UTF-8",
        remedy="convert the file (iconv -f latin1 -t utf-8), or put the replacement character "
        "there: --errors replace",
    )


def _opened(path: Path) -> BinaryIO:
    if path.suffix == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    if path.suffix == ".xz":
        return cast(BinaryIO, lzma.open(path, "rb"))
    if path.suffix == ".zst":
        return cast(BinaryIO, BufferedReader(_ZstandardFile(path), 2**17))
    return path.open("rb", buffering=2**17)


class _ZstandardFile(RawIOBase):
    """A .zst file, frame after frame; unlike zstandard's own reader, a cut one is an error."""

    def __init__(self, path: Path) -> None:
        self._file: BufferedIOBase = path.open("rb")
        self._frame: Any = None
        self._compressed = b""
        self._text = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._text:
            self._compressed = self._compressed or self._file.read(2**14)
            if not self._compressed:
                if self._frame is not None:
                    raise EOFError("the last frame is incomplete")
                return 0
            self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
            self._text = memoryview(self._frame.decompress(self._compressed))
            self._compressed = self._frame.unused_data
            if self._frame.eof:
                self._frame = None
        n = min(len(buffer), len(self._text))
        buffer[:n] = self._text[:n]
        self._text = self._text[n:]
        return n

    def close(self) -> None:
        self._file.close()
        super().close()
