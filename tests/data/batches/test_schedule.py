"""The order of updates."""

from __future__ import annotations

import itertools
import sys
from collections import Counter

import numpy as np
import pytest

from xlm_plugins.contracts.batch import Step
from xlm_plugins.core.errors import RunError
from xlm_plugins.core.selection import LossWeight
from xlm_plugins.data.batches.schedule import CHUNK_ITERATIONS, Schedule, ScheduledObjective, Update


def plan(
    name: str,
    sizes: dict[str, int],
    points: tuple[tuple[int, float], ...] = ((0, 1.0),),
    alpha: float = 0.7,
) -> ScheduledObjective:
    steps = tuple(Step.parse(text) for text in sizes)
    return ScheduledObjective(name, steps, tuple(sizes.values()), LossWeight(points), alpha)


MLM = plan("mlm", {"de": 10, "en": 1000, "fr": 100})
TLM = plan("tlm", {"en-fr": 50, "fr-en": 50})


def updates(schedule: Schedule, n: int) -> list[Update]:
    return [schedule.update(index) for index in range(n)]


def test_an_iteration_goes_through_the_objectives_in_order() -> None:
    found = updates(Schedule([MLM, TLM], 1), 50)
    assert [u.objective for u in found] == ["mlm", "mlm", "mlm", "tlm", "tlm"] * 10
    assert [u.iteration for u in found] == [i for i in range(10) for _ in range(5)]
    assert [u.index for u in found] == list(range(50))


def test_an_iteration_draws_at_most_five_steps_of_an_objective() -> None:
    many = plan("mlm", {f"l{i}": 10 for i in range(15)})
    found = updates(Schedule([many, TLM], 1), 70)
    assert Counter(u.objective for u in found if u.iteration == 3) == {"mlm": 5, "tlm": 2}
    assert len({u.step for u in found if u.objective == "mlm"}) > 10


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_steps_are_drawn_by_size_to_the_alpha(alpha: float) -> None:
    sizes = {"de": 10, "en": 1000, "fr": 100}
    schedule = Schedule([plan("mlm", sizes, alpha=alpha)], 1)
    drawn = Counter(str(u.step) for u in updates(schedule, 12_000))
    shares = {code: size**alpha for code, size in sizes.items()}
    for code, share in shares.items():
        wanted = share / sum(shares.values())
        assert drawn[code] / 12_000 == pytest.approx(wanted, abs=0.015)


def test_occurrences_count_the_earlier_updates_of_the_same_objective_and_step() -> None:
    schedule = Schedule([MLM, plan("clm", {"en": 5, "fr": 5}), TLM], 1)
    seen: Counter[tuple[str, Step]] = Counter()
    for update in updates(schedule, 3000):
        assert update.occurrence == seen[update.objective, update.step]
        seen[update.objective, update.step] += 1


@pytest.mark.parametrize("n", [1, 7, 5 * CHUNK_ITERATIONS, 5 * CHUNK_ITERATIONS + 1])
def test_counts_are_those_of_the_updates(n: int) -> None:
    counts = Schedule([MLM, TLM], 1).counts(n)
    found = Counter((u.objective, u.step) for u in updates(Schedule([MLM, TLM], 1), n))
    assert counts == {**dict.fromkeys(counts, 0), **found}
    assert len(counts) == 5


def test_any_update_is_found_alone() -> None:
    """Across chunks, in any order, in a fresh object."""
    per_chunk = 2 * CHUNK_ITERATIONS
    places = [per_chunk - 1, per_chunk, 2 * per_chunk + 7, 3, 0]
    walked = dict(enumerate(updates(Schedule([TLM], 1), 2 * per_chunk + 8)))
    schedule = Schedule([TLM], 1)
    assert [schedule.update(index) for index in places] == [walked[index] for index in places]


def test_the_millionth_update_counts_those_before() -> None:
    schedule = Schedule([MLM, TLM], 1)
    million = schedule.update(1_000_000)
    later = schedule.update(1_000_001)
    assert million.iteration == 200_000
    assert abs(schedule.update(999_998).occurrence - 200_000) < 5_000  # tlm, evenly drawn
    assert later.index == 1_000_001


def test_other_seeds_give_other_orders() -> None:
    one, two = (updates(Schedule([MLM, TLM], seed), 100) for seed in (1, 2))
    assert one != two
    assert one == updates(Schedule([MLM, TLM], 1), 100)


def test_a_weight_of_zero_skips_the_update_and_keeps_the_draws_of_the_others() -> None:
    late = plan("tlm", {"en-fr": 50, "fr-en": 50}, ((0, 0.0), (10, 0.0), (20, 2.0), (30, 0.0)))
    always, now_and_then = Schedule([MLM, TLM], 1), Schedule([MLM, late], 1)
    found = updates(now_and_then, 11 * 3 + 19 * 5 + 50 * 3)  # whole iterations
    tlm = [u for u in found if u.objective == "tlm"]
    assert {u.iteration for u in tlm} == set(range(11, 30))
    assert {u.weight for u in tlm if u.iteration == 15} == {1.0}
    assert {u.weight for u in tlm if u.iteration == 20} == {2.0}
    assert {u.weight for u in found if u.objective == "mlm"} == {1.0}

    def drawn(updates: list[Update], objective: str) -> dict[int, list[Step]]:
        groups = itertools.groupby(
            (u for u in updates if u.objective == objective), key=lambda u: u.iteration
        )
        return {iteration: [u.step for u in group] for iteration, group in groups}

    for name in ("mlm", "tlm"):
        reference = drawn(updates(always, 500), name)
        for iteration, steps in drawn(found, name).items():
            assert steps == reference[iteration]


def test_weights_that_are_zero_from_the_start_are_refused() -> None:
    with pytest.raises(RunError, match="nothing to train"):
        Schedule([plan("mlm", {"en": 1}, ((0, 0.0), (10, 0.0)))], 1)


def test_weights_that_fall_to_zero_for_good_end_the_schedule() -> None:
    schedule = Schedule([plan("mlm", {"en": 1}, ((0, 1.0), (100, 0.0)))], 1)
    assert schedule.update(99).iteration == 99
    with pytest.raises(RunError, match="after 100 updates"):
        schedule.update(100)
    schedule.check(100)
    for n_updates in (101, sys.maxsize):  # the latter where minutes end the run
        with pytest.raises(RunError, match="after 100 updates"):
            schedule.check(n_updates)


def test_a_long_pause_is_skipped() -> None:
    start = 50 * CHUNK_ITERATIONS
    schedule = Schedule([plan("mlm", {"en": 1}, ((start, 0.0), (start + 10, 1.0)))], 1)
    assert schedule.update(0).iteration == start + 1


def test_probabilities_sum_to_one() -> None:
    assert MLM.probabilities().sum() == pytest.approx(1.0)
    assert np.all(np.diff(MLM.probabilities()[[0, 2, 1]]) > 0)
