"""Parallel text: two files that go line by line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xlm_plugins import DataError


@dataclass(frozen=True)
class Pairs:
    """Sentences and their translations.

    :param left: sentences of one language.
    :param right: their translations, in the same order.
    :param n_blank: line pairs left out because a side was blank.
    """

    left: tuple[str, ...]
    right: tuple[str, ...]
    n_blank: int


def read_pairs(left: Path, right: Path) -> Pairs:
    """Read two plain text files of one sentence a line.

    :raises DataError: a file is missing or not UTF-8, they differ in length, or no line has text
        on both sides.
    """
    sides = [_lines(left), _lines(right)]
    n_left, n_right = map(len, sides)
    if n_left != n_right:
        raise DataError(
            f"{left} has {n_left:,} lines, and {right} has {n_right:,}",
            expected="parallel files that go line by line",
        )
    kept = [pair for pair in zip(*sides, strict=True) if all(text.strip() for text in pair)]
    if not kept:
        raise DataError(
            f"{left} and {right} have no line with text in both",
            expected="one sentence a line",
        )
    lefts, rights = zip(*kept, strict=True)
    return Pairs(lefts, rights, n_left - len(kept))


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}") from error
    except UnicodeDecodeError as error:
        n_before = error.object[: error.start].count(b"\n")
        raise DataError(
            f"{path}, line {n_before + 1}: byte 0x{error.object[error.start]:02x} is not UTF-8",
            expected="plain text in UTF-8",
            remedy="decompress the file, or convert it (iconv -f latin1 -t utf-8)",
        ) from error
    # Not by splitlines: a stray U+2028 inside a sentence would move all that follow.
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines
