"""Nearest neighbours: on vectors with a known answer, and against plain loops."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from xlm_retrieval import nearest
from xlm_retrieval.nearest import nearest_both_ways, nearest_by_words, unit

from xlm_plugins import OptionError


def towards(*degrees: float) -> np.ndarray:
    """Unit vectors of the plane. Shape: (n, 2)"""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def random_sides(n_left: int, n_right: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around one direction, so that a few are close to all others."""
    rng = np.random.default_rng(0)
    sides = (rng.standard_normal((n, 6)).astype(np.float32) + 2 for n in (n_left, n_right))
    left, right = (unit(side, centre=False) for side in sides)
    return left, right


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    return sum(float(a) * float(b) for a, b in zip(x, y, strict=True))


def margin(x: np.ndarray, y: np.ndarray, left: np.ndarray, right: np.ndarray) -> float:
    """The definition, for one pair."""
    near_x = sorted((cosine(x, z) for z in right), reverse=True)[:4]
    near_y = sorted((cosine(y, z) for z in left), reverse=True)[:4]
    return cosine(x, y) / (sum(near_x) / 8 + sum(near_y) / 8)


def test_cosine_is_the_smallest_angle() -> None:
    forth, back = nearest_both_ways(towards(0, 50, 90), towards(85, 10, 40, 200), "cosine")
    assert forth.tolist() == [1, 2, 0]
    assert back.tolist() == [2, 0, 1, 2]


def test_of_equals_the_first_is_nearest() -> None:
    forth, _ = nearest_both_ways(towards(10), towards(80, 10, 10), "cosine")
    assert forth.tolist() == [1]


def test_a_hub_wins_by_cosine_and_not_by_margin() -> None:
    """At 5 degrees is a hub, close to many; the first query's translation is at -8.

    Mean cosines to the four nearest: 0.81 of the query, 0.62 of the hub, 0.49 of the translation.
    So the margins are .996 / ((.81 + .62) / 2) = 1.39 and .990 / ((.81 + .49) / 2) = 1.53.
    """
    left, right = towards(0, 10, 80, 82, 84), towards(5, -8, 20, 72, 90, 100)
    assert nearest_both_ways(left, right, "cosine")[0][0] == 0
    assert nearest_both_ways(left, right, "margin")[0][0] == 1


@pytest.mark.parametrize("at_once", [1, 70, 2**24], ids=["a row", "some rows", "all"])
def test_margin_agrees_with_a_double_loop(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "_SIMILARITIES_AT_ONCE", at_once)
    left, right = random_sides(25, 30)
    table = np.empty((25, 30))
    for i, j in itertools.product(range(25), range(30)):
        table[i, j] = margin(left[i], right[j], left, right)
    forth, back = nearest_both_ways(left, right, "margin")
    assert forth.tolist() == table.argmax(axis=1).tolist()
    assert back.tolist() == table.argmax(axis=0).tolist()
    by_cosine, _ = nearest_both_ways(left, right, "cosine")
    assert forth.tolist() != by_cosine.tolist()  # otherwise the test would prove little


def test_few_rows_are_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "_SIMILARITIES_AT_ONCE", 100)
    left, right = random_sides(25, 30)
    shapes = [part.shape for _, part in nearest._similarities(left, right)]
    assert shapes == [(3, 30)] * 8 + [(1, 30)]


@pytest.mark.parametrize("n", [1, 4])
def test_margin_needs_more_rows_than_neighbours(n: int) -> None:
    with pytest.raises(OptionError, match=f"4 nearest of {n} sentences"):
        nearest_both_ways(towards(*range(n)), towards(*range(n)), "margin")


def test_margins_stay_correct_beside_a_sentence_close_to_none() -> None:
    sides = towards(182, 0, 1, 2, 3), towards(0, 1, 2, 3, 14)
    _, back = nearest_both_ways(*sides, "margin")
    assert 0 not in back


def test_centring_removes_what_a_side_has_in_common() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((50, 16)).astype(np.float32)
    shifts = 10 * rng.standard_normal((2, 16)).astype(np.float32)
    left, right = vectors + shifts[0], 3 * vectors + shifts[1]
    found = {
        centre: nearest_both_ways(unit(left, centre), unit(right, centre), "cosine")[0]
        for centre in (True, False)
    }
    assert found[True].tolist() == list(range(50))
    assert (found[False] == np.arange(50)).mean() < 0.5


def test_vectors_of_length_zero_stay_finite() -> None:
    scaled = unit(np.zeros((3, 2), np.float32), centre=True)
    assert np.isfinite(scaled).all()


TEXTS = [
    "Abraham begat Isaac; and Isaac begat Jacob",
    "And David said to Abner",
    "abner said: I know not, David",
    "42 men",
    "and",
]


def test_word_overlap_is_jaccards() -> None:
    queries = ["ABRAHAM et Isaac", "David dit à Abner", "42 hommes", "rien de commun", "…"]
    words = [[set(re.findall(r"\w+", text.lower())) for text in side] for side in (queries, TEXTS)]
    table = np.array([[len(a & b) / max(len(a | b), 1) for b in words[1]] for a in words[0]])
    found = nearest_by_words(queries, TEXTS)
    assert found.tolist() == table.argmax(axis=1).tolist()
    assert found.tolist() == [0, 1, 3, 0, 0]
