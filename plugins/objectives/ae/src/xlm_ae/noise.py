"""Noise: shuffle tokens a little, drop some, blank some; on all sentences at once.

All three work on unframed rows, so the frame stays intact.
"""

from __future__ import annotations

import numpy as np

from xlm_plugins import Ragged


def shuffle(rows: Ragged, distance: float, rng: np.random.Generator) -> Ragged:
    """Sort each row by the key ``index + uniform(0, distance)`` (arXiv 1711.00043, section 2.3).

    Only tokens less than ``distance`` apart can change places, so a token moves by less than that:
    by at most 2 positions for a distance of 3, and not at all for a distance of 1.
    """
    keys = np.arange(len(rows.values)) + distance * rng.random(len(rows.values))
    row = np.repeat(np.arange(rows.n_rows), rows.lengths)
    return Ragged(rows.values[np.lexsort((keys, row))], rows.offsets)


def drop(rows: Ragged, share: float, rng: np.random.Generator) -> Ragged:
    """Drop each token with probability ``share``, but never all of a row.

    :param rows: none of them empty.
    """
    draws = rng.random(len(rows.values))
    greatest = np.maximum.reduceat(draws, rows.offsets[:-1])
    stays = (draws >= share) | (draws == np.repeat(greatest, rows.lengths))
    n_before = np.append(0, np.cumsum(stays))
    return Ragged(rows.values[stays], n_before[rows.offsets])


def blank(rows: Ragged, share: float, mask: int, rng: np.random.Generator) -> Ragged:
    """Replace each token by ``mask`` with probability ``share``."""
    hidden = rng.random(len(rows.values)) < share
    return Ragged(np.where(hidden, mask, rows.values), rows.offsets)
