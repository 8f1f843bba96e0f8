"""Scores of predictions: accuracy, F1, Matthews, Pearson and Spearman, all times 100.

Each takes the true and the predicted values, of shape (n,).  A score that is undefined, because
all values are equal, is 0.  Tests compare them with scikit-learn and SciPy.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.generic]


def accuracy(targets: Numbers, predicted: Numbers) -> float:
    """Share of correct predictions."""
    return 100 * float((targets == predicted).mean())


def f1(targets: Numbers, predicted: Numbers, positive: int = 1) -> float:
    """Harmonic mean of precision and recall of one class."""
    n_right = int(((predicted == positive) & (targets == positive)).sum())
    n_named = int((predicted == positive).sum()) + int((targets == positive).sum())
    return 200 * n_right / n_named if n_named else 0.0


def macro_f1(targets: Numbers, predicted: Numbers) -> float:
    """The mean F1 over the classes that occur among the targets or the predictions."""
    classes = np.union1d(targets, predicted).tolist()
    return float(np.mean([f1(targets, predicted, positive) for positive in classes]))


def matthews(targets: Numbers, predicted: Numbers) -> float:
    """Matthews' correlation coefficient for two or more classes (Gorodkin 2004)."""
    classes = np.union1d(targets, predicted)
    true = (targets[:, None] == classes).astype(np.float64)
    named = (predicted[:, None] == classes).astype(np.float64)
    return pearson(true, named)


def pearson(targets: Numbers, predicted: Numbers) -> float:
    """Pearson's linear correlation; for shape (n, k), over all k columns together."""
    one, other = _centred(targets), _centred(predicted)
    size = float(np.sqrt((one * one).sum() * (other * other).sum()))
    return 100 * float((one * other).sum()) / size if size > 0 else 0.0


def spearman(targets: Numbers, predicted: Numbers) -> float:
    """Spearman's rank correlation; equal values share their mean rank."""
    return pearson(_ranks(targets), _ranks(predicted))


def _centred(values: Numbers) -> npt.NDArray[np.float64]:
    """Values minus their mean, and exactly zero if all are equal."""
    exact = values.astype(np.float64)
    moved: npt.NDArray[np.float64] = exact - exact[:1]
    centred: npt.NDArray[np.float64] = moved - moved.mean(axis=0)
    return centred


def _ranks(values: Numbers) -> npt.NDArray[np.float64]:
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = counts.cumsum()
    ranks: npt.NDArray[np.float64] = (ends - (counts - 1) / 2)[which]
    return ranks
