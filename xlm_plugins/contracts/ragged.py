"""Rows of different lengths in one flat array: the form of text from shards to batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Ragged:
    """Concatenated rows.

    :param values: the values of all rows. Shape: (n_values,)
    :param offsets: row r is ``values[offsets[r]:offsets[r + 1]]``. Shape: (n_rows + 1,)
    """

    values: IntArray
    offsets: IntArray

    @classmethod
    def of(cls, rows: Sequence[Sequence[int] | IntArray]) -> Ragged:
        """Concatenate rows."""
        lengths = np.fromiter((len(row) for row in rows), np.int64, len(rows))
        values = np.concatenate([np.asarray(row, np.int64) for row in rows]) if rows else lengths
        return cls(values, offsets_of(lengths))

    @property
    def n_rows(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> IntArray:
        """Values per row. Shape: (n_rows,)"""
        return np.diff(self.offsets)

    @property
    def rows(self) -> list[IntArray]:
        return np.split(self.values, self.offsets[1:-1]) if self.n_rows else []

    def take(self, rows: IntArray) -> Ragged:
        """The given rows, in the given order, without a Python loop."""
        begins = self.offsets[rows]
        lengths = self.offsets[rows + 1] - begins  # only of these rows: there may be many others
        offsets = offsets_of(lengths)
        source = np.arange(offsets[-1]) + np.repeat(begins - offsets[:-1], lengths)
        return Ragged(self.values[source], offsets)

    def cut(self, lengths: IntArray) -> Ragged:
        """The first values of each row.

        :param lengths: how many, at most the length of the row.  Shape: (n_rows,)
        """
        offsets = offsets_of(lengths)
        source = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1] - offsets[:-1], lengths)
        return Ragged(self.values[source], offsets)

    def framed(self, first: int, last: int) -> Ragged:
        """Every row with ``first`` before it and ``last`` after it."""
        offsets = self.offsets + 2 * np.arange(self.n_rows + 1)
        values = np.empty(offsets[-1], np.int64)
        values[offsets[:-1]] = first
        values[offsets[1:] - 1] = last
        inside = np.ones(len(values), bool)
        inside[offsets[:-1]] = inside[offsets[1:] - 1] = False
        values[inside] = self.values
        return Ragged(values, offsets)

    def positions(self) -> Ragged:
        """The index of each value within its row, with the same offsets."""
        counts = np.arange(len(self.values)) - np.repeat(self.offsets[:-1], self.lengths)
        return Ragged(counts, self.offsets)

    def filled(self, value: int) -> Ragged:
        """The same offsets, with every value replaced by ``value``."""
        return Ragged(np.full(len(self.values), value, np.int64), self.offsets)

    def joined(self, other: Ragged) -> Ragged:
        """Row r of this, followed by row r of the other, as one row."""
        both = stack([self, other])
        pairs = np.arange(2 * self.n_rows).reshape(2, -1).T.reshape(-1)
        woven = both.take(pairs)
        return Ragged(woven.values, woven.offsets[::2])


def offsets_of(lengths: IntArray) -> IntArray:
    """The offsets of rows of these lengths. Shape: (n_rows,) -> (n_rows + 1,)"""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def stack(parts: Sequence[Ragged]) -> Ragged:
    """The rows of all parts, in order."""
    if len(parts) == 1:
        return parts[0]
    lengths = np.concatenate([part.lengths for part in parts])
    return Ragged(np.concatenate([part.values for part in parts]), offsets_of(lengths))
