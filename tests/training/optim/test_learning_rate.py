"""Learning rates over a run."""

from __future__ import annotations

import pytest

from xlm_plugins.config.training import OptimizerOptions, RunOptions
from xlm_plugins.training.optim.learning_rate import LearningRate, ended_early, schedule_notes


def rates(n, warmup_start=1e-7, steps=10, **options):
    schedule = LearningRate(OptimizerOptions(**options), warmup_start)
    return [schedule.at(update, update / steps) for update in range(n)]


def test_inverse_sqrt_follows_the_reference():
    expected = [1e-4, 4e-4, 7e-4, 1e-3, 1e-3 * (3 / 4) ** 0.5, 1e-3 * (3 / 5) ** 0.5]
    found = rates(6, 1e-4, lr=1e-3, schedule="inverse_sqrt", warmup=3)
    assert found == pytest.approx(expected, rel=1e-12)


def test_cosine_restarts_shrunken_after_each_period():
    options = {"cosine_period": 4, "cosine_multiplier": 2.0, "cosine_shrink": 0.5}
    found = rates(13, lr=1.0, schedule="cosine", warmup=0, **options)
    assert found[0] == 1.0
    assert found[2] == pytest.approx(0.5)
    assert found[4] == pytest.approx(0.5)  # half the peak, for eight updates
    assert found[8] == pytest.approx(0.25)
    assert found[12] == pytest.approx(0.25)  # a quarter, for sixteen


def test_cosine_without_a_period_takes_the_whole_run():
    found = rates(11, lr=1.0, schedule="cosine", warmup=0)
    assert found[0] == 1.0
    assert found[5] == pytest.approx(0.5)
    assert found[10] == pytest.approx(0.0, abs=1e-8)


def test_a_period_that_shrinks_to_nothing_still_ends():
    schedule = LearningRate(
        OptimizerOptions(schedule="cosine", warmup=0, cosine_period=4, cosine_multiplier=0.1)
    )
    assert schedule.at(1000, 0.5) <= 1e-3


def test_linear_rises_from_almost_zero_and_falls_to_zero():
    found = rates(11, lr=1.0, schedule="linear", warmup=4)
    assert found[0] == 1e-7
    assert found[2] == pytest.approx(0.5)
    assert found[5:] == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1, 0.0])


def test_progress_counts_and_not_the_update_number():
    schedule = LearningRate(OptimizerOptions(lr=1.0, warmup=2))
    assert schedule.at(50, 0.25) == pytest.approx(0.75)
    assert schedule.at(50, 1.7) == 0.0


def test_constant_stays_after_the_warmup():
    assert rates(5, lr=2.0, schedule="constant", warmup=2)[2:] == [2.0, 2.0, 2.0]
    assert rates(2, lr=2.0, schedule="constant", warmup=0) == [2.0, 2.0]


def test_inverse_sqrt_without_warmup_starts_at_the_peak():
    found = rates(5, lr=1.0, schedule="inverse_sqrt", warmup=0)
    assert found == pytest.approx([1.0, 1.0, 0.5**0.5, 3**-0.5, 0.5])


@pytest.mark.parametrize(
    ("run", "length", "warmup"),
    [
        ({"steps": 4000}, "4,000 steps;", "200 steps"),
        ({"minutes": 2.5}, "2.5 minutes;", "10% of the time, 200 steps at most"),
        (
            {"steps": 4000, "minutes": 5.0},
            "4,000 steps or 5 minutes, whichever comes first;",
            "200 steps",
        ),
    ],
)
def test_what_ends_a_run_and_its_warmup_are_told(run, length, warmup):
    (note,) = schedule_notes(RunOptions(**run), OptimizerOptions())
    assert note.startswith(f"length: {length}")
    assert note.endswith(f"learning rate 0.001, linear, with a warm-up of {warmup}")


def test_where_the_clock_ends_a_run_its_default_warmup_is_a_tenth_of_the_time():
    schedule = LearningRate(OptimizerOptions(lr=1.0, schedule="constant"))
    assert schedule.at(10, 0.05) == pytest.approx(0.5)
    assert schedule.at(10, 0.1) == 1.0  # after few, slow updates
    assert schedule.at(100, 0.01) == pytest.approx(0.5)
    assert schedule.at(200, 0.02) == 1.0  # after many, quick ones
    given = LearningRate(OptimizerOptions(lr=1.0, schedule="constant", warmup=100))
    assert given.at(10, 0.5) == pytest.approx(0.1)


def test_a_warmup_that_is_longer_than_the_run_is_warned_of():
    told = schedule_notes(RunOptions(steps=100), OptimizerOptions(warmup=100))
    assert told[1].startswith("warning: --warmup 100 is no shorter than the run of 100 steps")
    assert len(schedule_notes(RunOptions(steps=100), OptimizerOptions(warmup=99))) == 1
    assert len(schedule_notes(RunOptions(minutes=1.0), OptimizerOptions(warmup=99))) == 1


def test_minutes_that_end_within_the_warmup_are_warned_of():
    given = OptimizerOptions(warmup=200)
    assert "after 199 steps, within the warm-up of 200" in ended_early(199, given)[0]
    assert ended_early(200, given) == []
    assert ended_early(1, OptimizerOptions()) == []  # the default adapts
