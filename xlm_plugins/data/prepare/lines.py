"""Reading a stream's sentences line by line, in bounded memory.

Blank lines are dropped, and so is a pair of lines with a blank side.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from xlm_plugins.core.errors import DataError
from xlm_plugins.core.text_files import read_lines
from xlm_plugins.data.prepare.sources import StreamSource


@dataclass(frozen=True)
class TextCount:
    """The size of a stream's text.

    :param n_lines: lines, or line pairs, in the files.
    :param n_sentences: number of those that are kept.
    :param n_characters: characters of the kept text, for each language.
    """

    n_lines: int
    n_sentences: int
    n_characters: tuple[int, ...]

    @property
    def n_blank(self) -> int:
        """Lines, or pairs, that are dropped because they, or one side, are blank."""
        return self.n_lines - self.n_sentences


def lines(path: Path, errors: str) -> Iterator[str]:
    """Yield the lines of a file, as `read_lines` does.

    :raises DataError: as `read_lines`; or all lines are blank.
    """
    any_text = False
    for text in read_lines(path, errors):
        any_text = any_text or not _is_blank(text)
        yield text
    if not any_text:
        raise DataError(
            f"{path} is empty, or has only blank lines",
            remedy="remove the file, or fill it with one sentence per line",
        )


def sentences(source: StreamSource, errors: str) -> Iterator[tuple[str, ...]]:
    """The stream's sentences, or pairs: one text for each language, none of them blank."""
    return (row for row in zip(*_sides(source, errors), strict=True) if not _any_blank(row))


def count_text(source: StreamSource, errors: str) -> TextCount:
    """Read a stream once from start to end, so that errors are found before any work is done.

    :raises DataError: as `lines`; or the sides of a parallel text differ in length.
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
        sizes = " and ".join(f"{n:,} lines in {', '.join(map(str, files))}" for n, files in sides)
        raise DataError(
            f"the sides of {source.name} differ in length: {sizes}",
            expected="files that are parallel line by line",
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
