"""How predictions are judged: accuracy, F1, Matthews, Pearson and Spearman, all times 100.

Each takes the true and the predicted values, shape (n,).  Where a score is not defined, because
everything is alike, it is 0.  The tests hold them to scikit-learn and SciPy.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.generic]


def accuracy(targets: Numbers, predicted: Numbers) -> float:
    """Share of rows that are right."""
    return 100 * float((targets == predicted).mean())


def f1(targets: Numbers, predicted: Numbers, positive: int = 1) -> float:
    """Harmonic mean of precision and recall of one class."""
    n_right = int(((predicted == positive) & (targets == positive)).sum())
    n_named = int((predicted == positive).sum()) + int((targets == positive).sum())
    return 200 * n_right / n_named if n_named else 0.0


def macro_f1(targets: Numbers, predicted: Numbers) -> float:
    """The mean F1 over the classes that occur, in truth or in the predictions."""
    classes = np.union1d(targets, predicted).tolist()
    return float(np.mean([f1(targets, predicted, positive) for positive in classes]))


def matthews(targets: Numbers, predicted: Numbers) -> float:
    """Matthews' correlation of classes, two or more (Gorodkin 2004)."""
    classes = np.union1d(targets, predicted)
    true = (targets[:, None] == classes).astype(np.float64)
    named = (predicted[:, None] == classes).astype(np.float64)
    return pearson(true, named)


def pearson(targets: Numbers, predicted: Numbers) -> float:
    """Pearson's linear correlation; of rows of shape (n, k), over all k columns together."""
    one, other = _centred(targets), _centred(predicted)
    size = float(np.sqrt((one * one).sum() * (other * other).sum()))
    return 100 * float((one * other).sum()) / size if size > 0 else 0.0


def spearman(targets: Numbers, predicted: Numbers) -> float:
    """Spearman's correlation of ranks; equal values share their mean rank."""
    return pearson(_ranks(targets), _ranks(predicted))


def _centred(values: Numbers) -> npt.NDArray[np.float64]:
    """Values less their mean, and zeros to the digit where all are alike."""
    exact = values.astype(np.float64)
    moved: npt.NDArray[np.float64] = exact - exact[:1]
    centred: npt.NDArray[np.float64] = moved - moved.mean(axis=0)
    return centred


def _ranks(values: Numbers) -> npt.NDArray[np.float64]:
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = counts.cumsum()
    ranks: npt.NDArray[np.float64] = (ends - (counts - 1) / 2)[which]
    return ranks
