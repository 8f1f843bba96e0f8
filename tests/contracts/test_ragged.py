"""Rows of different lengths in one array."""

from __future__ import annotations

import numpy as np
import pytest

from xlm_plugins.contracts.ragged import Ragged, offsets_of, stack

ROWS = [[5, 6, 7], [8], [], [9, 10]]


def lists(ragged: Ragged) -> list[list[int]]:
    return [row.tolist() for row in ragged.rows]


def test_cut_keeps_the_first_values() -> None:
    lengths = np.array([2, 1, 0, 0])
    assert lists(Ragged.of(ROWS).cut(lengths)) == [[5, 6], [8], [], []]


def test_rows_are_those_it_was_made_of() -> None:
    ragged = Ragged.of(ROWS)
    assert lists(ragged) == ROWS
    assert ragged.n_rows == 4
    assert ragged.lengths.tolist() == [3, 1, 0, 2]


def test_no_rows() -> None:
    empty = Ragged.of([])
    assert empty.n_rows == 0
    assert empty.rows == []
    assert lists(empty.framed(1, 2)) == []
    assert lists(empty.take(np.empty(0, int))) == []


def test_take_repeats_and_reorders_rows() -> None:
    assert lists(Ragged.of(ROWS).take(np.array([3, 0, 3, 2]))) == [[9, 10], [5, 6, 7], [9, 10], []]


def test_take_works_with_small_integer_types() -> None:
    ragged = Ragged.of(ROWS)
    narrow = Ragged(ragged.values.astype(np.uint16), ragged.offsets.astype(np.uint32))
    taken = narrow.take(np.array([3, 0]))
    assert taken.values.dtype == np.uint16
    assert lists(taken) == [[9, 10], [5, 6, 7]]
    assert lists(narrow.framed(1, 2)) == lists(ragged.framed(1, 2))
    assert lists(stack([narrow, narrow])) == ROWS + ROWS


def test_framed_adds_a_token_at_both_ends() -> None:
    framed = Ragged.of(ROWS).framed(1, 2)
    assert lists(framed) == [[1, 5, 6, 7, 2], [1, 8, 2], [1, 2], [1, 9, 10, 2]]


def test_positions_start_at_zero_in_each_row() -> None:
    assert lists(Ragged.of(ROWS).positions()) == [[0, 1, 2], [0], [], [0, 1]]


def test_filled_keeps_the_layout() -> None:
    assert lists(Ragged.of(ROWS).filled(4)) == [[4, 4, 4], [4], [], [4, 4]]


def test_joined_concatenates_rows_pairwise() -> None:
    other = Ragged.of([[1], [], [2, 3], [4]])
    assert lists(Ragged.of(ROWS).joined(other)) == [[5, 6, 7, 1], [8], [2, 3], [9, 10, 4]]


@pytest.mark.parametrize("n_parts", [1, 3])
def test_stack_concatenates_parts(n_parts: int) -> None:
    assert lists(stack([Ragged.of(ROWS)] * n_parts)) == ROWS * n_parts


def test_offsets_begin_at_zero_and_end_at_the_sum() -> None:
    assert offsets_of(np.array([2, 0, 3])).tolist() == [0, 2, 2, 5]
