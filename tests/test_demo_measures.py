"""Nearest neighbours."""

from __future__ import annotations

import numpy as np
import pytest

from xlm_plugins.demo import overlap_accuracy, retrieval_accuracy


def test_finds_rows_that_differ_by_a_common_shift() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((50, 16)).astype(np.float32)
    shift = 100 * rng.standard_normal(16).astype(np.float32)  # what a language has in common
    assert retrieval_accuracy(vectors, 3 * vectors + shift) == 100.0


def test_counts_only_the_own_translation() -> None:
    vectors = np.eye(4, dtype=np.float32)
    assert retrieval_accuracy(vectors, vectors[[0, 1, 3, 2]]) == 50.0


def test_unrelated_vectors_are_found_by_chance() -> None:
    rng = np.random.default_rng(1)
    sides = rng.standard_normal((2, 400, 32)).astype(np.float32)
    assert retrieval_accuracy(*sides) < 2.0


def test_word_overlap() -> None:
    queries = ["Abraham dit à Isaac", "rien de commun"]
    candidates = ["Abraham said to Isaac", "nothing at all"]
    # The second query shares nothing with either, and ties go to the first candidate.
    assert overlap_accuracy(queries, candidates) == pytest.approx(50.0)
