"""Scores are those of scikit-learn and SciPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from xlm_plugins import accuracy, f1, macro_f1, matthews, pearson, spearman

Score = Callable[..., float]

OF_CLASSES = [
    (accuracy, metrics.accuracy_score),
    (matthews, metrics.matthews_corrcoef),
    (macro_f1, lambda *rows: metrics.f1_score(*rows, average="macro", zero_division=0)),
]
OF_VALUES = [
    (pearson, lambda *rows: stats.pearsonr(*rows).statistic),
    (spearman, lambda *rows: stats.spearmanr(*rows).statistic),
]


def classes(n_classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """True classes, and predictions about half of which are right."""
    rng = np.random.default_rng(seed)
    true, guessed = rng.integers(n_classes, size=(2, 60))
    return true, np.where(rng.random(60) < 0.5, true, guessed)


@pytest.mark.parametrize("n_classes", [2, 3, 7])
@pytest.mark.parametrize(("ours", "theirs"), OF_CLASSES, ids=["accuracy", "matthews", "macro_f1"])
def test_scores_of_classes_are_those_of_scikit_learn(
    ours: Score, theirs: Score, n_classes: int
) -> None:
    for seed in range(5):
        rows = classes(n_classes, seed)
        assert ours(*rows) == pytest.approx(100 * theirs(*rows), abs=1e-9)
        assert 20 < ours(*rows) < 90  # otherwise the comparison means little


@pytest.mark.parametrize("positive", [0, 1, 2])
def test_f1_of_one_class_is_that_of_scikit_learn(positive: int) -> None:
    true, predicted = classes(3, seed=0)
    wanted = metrics.f1_score(true == positive, predicted == positive)
    assert f1(true, predicted, positive) == pytest.approx(100 * wanted)
    assert f1(true % 2, predicted % 2) == f1(true % 2, predicted % 2, positive=1)


@pytest.mark.parametrize(("ours", "theirs"), OF_VALUES, ids=["pearson", "spearman"])
def test_scores_of_values_are_those_of_scipy(ours: Score, theirs: Score) -> None:
    rng = np.random.default_rng(0)
    for offset in (0.0, 1000.0):
        true = (rng.normal(size=50) + offset).astype(np.float32)
        predicted = (true + rng.normal(size=50)).astype(np.float32)
        exact = true.astype(np.float64), predicted.astype(np.float64)
        assert ours(true, predicted) == pytest.approx(100 * theirs(*exact), abs=1e-9)


def test_equal_values_share_their_mean_rank() -> None:
    rng = np.random.default_rng(0)
    true, predicted = rng.integers(4, size=(2, 50))
    wanted = 100 * stats.spearmanr(true, predicted).statistic
    assert spearman(true, predicted) == pytest.approx(wanted)


@pytest.mark.parametrize("score", [accuracy, macro_f1, matthews, pearson, spearman])
def test_perfect_predictions_score_100(score: Score) -> None:
    true = np.array([2, 0, 1, 1, 2])
    assert score(true, true) == pytest.approx(100)


@pytest.mark.parametrize("score", [matthews, pearson, spearman])
@pytest.mark.parametrize("n", [1, 3, 10])
def test_correlation_with_constant_values_is_0(score: Score, n: int) -> None:
    """Even if the mean of equal numbers differs from them by rounding, as that of three 0.1."""
    alike, different = np.full(n, 0.1), np.arange(n)
    assert score(alike, different) == score(different, alike) == score(alike, alike) == 0


def test_f1_of_a_class_that_does_not_occur_is_0() -> None:
    zeros = np.zeros(3, int)
    assert f1(zeros, zeros) == 0
    assert f1(zeros, np.ones(3, int)) == 0
    assert macro_f1(zeros, zeros) == 100  # over the classes that occur


def test_all_of_one_class_is_at_the_majority_rate() -> None:
    true, predicted = np.array([0, 0, 0, 1]), np.zeros(4, int)
    assert accuracy(true, predicted) == 75
    assert macro_f1(true, predicted) == pytest.approx(100 * (6 / 7 + 0) / 2)
    assert matthews(true, predicted) == 0
