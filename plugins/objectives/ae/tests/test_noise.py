"""Noise: what each kind does to a sentence, how often, and that it can be switched off."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from xlm_ae.noise import blank, drop, shuffle

from xlm_plugins import Ragged

MASK = 5
Noise = Callable[[Ragged, float, np.random.Generator], Ragged]


def blanked(rows: Ragged, share: float, rng: np.random.Generator) -> Ragged:
    return blank(rows, share, MASK, rng)


KINDS = pytest.mark.parametrize("noise", [shuffle, drop, blanked])


def sentences(n: int, longest: int = 20) -> Ragged:
    """Each token is its position in its sentence, plus 10, so that moves can be seen."""
    lengths = np.random.default_rng(1).integers(1, longest + 1, size=n)
    return Ragged.of([np.arange(length) + 10 for length in lengths])


@pytest.mark.parametrize(("distance", "furthest"), [(3.0, 2), (2.5, 2), (5.0, 4), (1.0, 0)])
def test_a_token_moves_by_less_than_the_distance(distance: float, furthest: int) -> None:
    rows = sentences(2000)
    found = shuffle(rows, distance, np.random.default_rng(0))
    moved = np.abs(found.values - 10 - rows.positions().values)
    assert moved.max() == furthest
    assert found.offsets.tolist() == rows.offsets.tolist()
    assert [sorted(row) for row in found.rows] == [row.tolist() for row in rows.rows]


def test_shuffled_neighbours_swap_as_often_as_their_keys_say() -> None:
    """Of two tokens with uniform(0, 3) added, the second overtakes where u0 - u1 > 1: in 2/9."""
    found = shuffle(Ragged.of([[10, 11]] * 20_000), 3.0, np.random.default_rng(0))
    assert np.mean(found.values[::2] == 11) == pytest.approx(2 / 9, abs=0.01)


def test_dropout_leaves_out_its_share_and_keeps_the_order() -> None:
    rows = sentences(5000)
    found = drop(rows, 0.1, np.random.default_rng(0))
    assert 1 - len(found.values) / len(rows.values) == pytest.approx(0.1, abs=0.005)
    assert all((np.diff(row) > 0).all() for row in found.rows)
    assert (found.lengths <= rows.lengths).all()


def test_one_token_stays_and_it_may_be_any() -> None:
    rows = Ragged.of([[10, 11, 12]] * 6000)
    found = drop(rows, 1.0, np.random.default_rng(0))
    assert found.lengths.tolist() == [1] * 6000
    assert np.bincount(found.values)[10:] / 6000 == pytest.approx([1 / 3] * 3, abs=0.02)


def test_dropout_treats_each_row_independently() -> None:
    """Of two tokens at p = 0.5: both stay in 1/4, and each of them alone in 3/8."""
    found = drop(Ragged.of([[10, 11]] * 20_000), 0.5, np.random.default_rng(0))
    assert np.mean(found.lengths == 2) == pytest.approx(1 / 4, abs=0.01)
    alone = found.values[found.offsets[:-1][found.lengths == 1]]
    assert np.mean(alone == 10) == pytest.approx(1 / 2, abs=0.01)


def test_blanks_replace_tokens_in_place() -> None:
    rows = sentences(5000)
    found = blanked(rows, 0.1, np.random.default_rng(0))
    hidden = found.values == MASK
    assert hidden.mean() == pytest.approx(0.1, abs=0.005)
    assert np.array_equal(found.values[~hidden], rows.values[~hidden])
    assert np.array_equal(found.offsets, rows.offsets)


@KINDS
def test_noise_can_be_switched_off(noise: Noise) -> None:
    rows = sentences(200)
    found = noise(rows, 0.0, np.random.default_rng(0))
    assert np.array_equal(found.values, rows.values)
    assert np.array_equal(found.offsets, rows.offsets)


@KINDS
def test_the_generator_decides(noise: Noise) -> None:
    rows, share = sentences(200), 3.0 if noise is shuffle else 0.5
    one, same, other = (noise(rows, share, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one.values, same.values)
    assert not np.array_equal(one.values, other.values)
