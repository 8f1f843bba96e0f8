"""Parallel text: two files that go line by line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xlm_plugins import DataError, read_lines


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
    """Read two text files with one sentence per line, plain or compressed.

    :raises DataError: as `read_lines`; they differ in length, or no line has text on both sides.
    """
    sides = [list(read_lines(left)), list(read_lines(right))]
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
