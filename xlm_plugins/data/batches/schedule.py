"""Which objective and step each update trains on: a pure function of (seed, index).

An *iteration* goes through the objectives in order.  Each draws up to five of its steps, with
replacement, and each draw is one *update*.  An objective whose loss weight is 0 at an iteration
keeps its place in the draw but makes no update, so switching it off does not change what the
others see.  (For the sampling of languages: XLM, arXiv 1901.07291, section 3.1)

Iterations are drawn in chunks, each from its own random numbers; a chunk's updates are counted
without drawing their data, so that the millionth update is found at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from xlm_plugins.contracts.batch import Step
from xlm_plugins.contracts.ragged import IntArray
from xlm_plugins.core.errors import RunError
from xlm_plugins.core.selection import LossWeight
from xlm_plugins.data.batches.keyed_rng import keyed_rng

MAX_DRAWS = 5
CHUNK_ITERATIONS = 4096


@dataclass(frozen=True)
class ScheduledObjective:
    """One objective's part in the schedule.

    :param objective: its name.
    :param steps: the steps it trains on.
    :param sizes: how much text each step has, in sentences or pairs.
    :param weight: the loss weight by iteration.
    :param alpha: a step's probability is proportional to size^alpha; 0 draws uniformly.
    """

    objective: str
    steps: tuple[Step, ...]
    sizes: tuple[int, ...]
    weight: LossWeight
    alpha: float

    @property
    def n_draws(self) -> int:
        """Draws per iteration."""
        return min(MAX_DRAWS, len(self.steps))

    def probabilities(self) -> npt.NDArray[np.float64]:
        """The probability of each step in one draw. Shape: (n_steps,)"""
        sizes = np.asarray(self.sizes, np.float64)
        shares = (sizes / sizes.sum()) ** self.alpha
        probabilities: npt.NDArray[np.float64] = shares / shares.sum()
        return probabilities


@dataclass(frozen=True)
class Update:
    """One update of the weights.

    :param index: number of updates before it.
    :param iteration: the iteration that it belongs to, which loss weights depend on.
    :param occurrence: number of earlier updates with the same objective and step.
    :param weight: the loss weight at this iteration, above 0.
    """

    index: int
    iteration: int
    objective: str
    step: Step
    occurrence: int
    weight: float


class _Chunk(NamedTuple):
    """The updates of `CHUNK_ITERATIONS` iterations, in order.

    ``choices`` are indices into all steps of all objectives.  Both have shape (n_updates,).
    """

    choices: IntArray
    iterations: IntArray


class Schedule:
    """The order of updates.

    :param objectives: in the order in which an iteration goes through them.
    :param seed: the random seed of the run.
    :raises RunError: no objective has a weight above 0 at any time.
    """

    def __init__(self, objectives: Sequence[ScheduledObjective], seed: int) -> None:
        self.objectives = tuple(objectives)
        self.seed = seed
        self._choices = [(part, step) for part in self.objectives for step in part.steps]
        # Updates, and updates of each choice, before each chunk counted so far.
        self._n_before = [0]
        self._counts_before = [np.zeros(len(self._choices), np.int64)]
        self._current: tuple[int, _Chunk] | None = None
        if not any(weight > 0 for part in self.objectives for _, weight in part.weight.points):
            raise RunError(
                "every objective has weight 0, so there is nothing to train",
                remedy="give one of them a weight above 0, such as --objective mlm@1",
            )

    def update(self, index: int) -> Update:
        """The update with an index, counted from 0.

        :raises RunError: all weights have fallen to 0 for good before that update.
        """
        number = self._chunk_with(index)
        chunk = self._chunk(number)
        place = index - self._n_before[number]
        choice, iteration = int(chunk.choices[place]), int(chunk.iterations[place])
        earlier = self._counts_before[number][choice]
        occurrence = int(earlier + np.count_nonzero(chunk.choices[:place] == choice))
        part, step = self._choices[choice]
        weight = part.weight.at(iteration)
        return Update(index, iteration, part.objective, step, occurrence, weight)

    def counts(self, n_updates: int) -> dict[tuple[str, Step], int]:
        """How many of the first updates have each objective and step.

        :raises RunError: all weights fall to 0 for good before so many updates.
        """
        number = self._chunk_with(n_updates - 1)
        choices = self._chunk(number).choices[: n_updates - self._n_before[number]]
        counts = self._counts_before[number] + np.bincount(choices, minlength=len(self._choices))
        return {
            (part.objective, step): int(n)
            for (part, step), n in zip(self._choices, counts, strict=True)
        }

    def check(self, n_updates: int) -> None:
        """Make sure that there is something to train on until the end.

        :raises RunError: all weights fall to 0 for good before so many updates.
        """
        if all(part.weight.points[-1][1] == 0 for part in self.objectives):
            self._chunk_with(n_updates - 1)

    def _chunk_with(self, index: int) -> int:
        """The chunk that contains an update; chunks up to there are counted once and cached."""
        while self._n_before[-1] <= index:
            number = len(self._n_before) - 1
            self._refuse_if_over(number * CHUNK_ITERATIONS)
            choices = self._chunk(number).choices
            self._n_before.append(self._n_before[-1] + len(choices))
            counts = np.bincount(choices, minlength=len(self._choices))
            self._counts_before.append(self._counts_before[-1] + counts)
        return int(np.searchsorted(self._n_before, index, side="right")) - 1

    def _refuse_if_over(self, iteration: int) -> None:
        last_points = [part.weight.points[-1] for part in self.objectives]
        if all(weight == 0 and iteration >= last for last, weight in last_points):
            raise RunError(
                f"after {self._n_before[-1]} updates every objective has weight 0 for good",
                expected=f"--steps of at most {self._n_before[-1]}, or a weight that stays above 0",
            )

    def _chunk(self, number: int) -> _Chunk:
        if self._current is None or self._current[0] != number:
            self._current = (number, self._draw(number))
        return self._current[1]

    def _draw(self, number: int) -> _Chunk:
        """Draw a choice for every place of every iteration, then leave out those of weight 0."""
        first = number * CHUNK_ITERATIONS
        iterations = np.arange(first, first + CHUNK_ITERATIONS)
        n_draws = [part.n_draws for part in self.objectives]
        draws = keyed_rng(self.seed, "schedule", number).random((len(iterations), sum(n_draws)))
        choices = np.empty(draws.shape, np.int64)
        active = np.empty(draws.shape, bool)
        first_choices = itertools.accumulate(
            (len(part.steps) for part in self.objectives), initial=0
        )
        ends = np.cumsum(n_draws)
        for part, end, first_choice in zip(self.objectives, ends, first_choices, strict=False):
            places = slice(end - part.n_draws, end)
            # The last bound is left out: rounding may leave it below a draw.
            bounds = np.cumsum(part.probabilities())[:-1]
            choices[:, places] = first_choice + np.searchsorted(bounds, draws[:, places], "right")
            active[:, places] = (_weights(part.weight, iterations) > 0)[:, None]
        return _Chunk(choices[active], np.repeat(iterations, active.sum(axis=1)))


def _weights(weight: LossWeight, iterations: IntArray) -> npt.NDArray[np.float64]:
    """`LossWeight.at` for many iterations at once."""
    at, value = zip(*weight.points, strict=True)
    weights: npt.NDArray[np.float64] = np.interp(iterations, at, value)
    return weights
