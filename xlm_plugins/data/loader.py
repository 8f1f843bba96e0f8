"""Batches for the trainer: this rank's share of every update, by loader processes or without.

What a batch holds is decided by (manifest, seed, index of the update) and by nothing else, so
it is the same for any number of ranks, micro-batches and workers.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import DataLoader, Dataset

from xlm_plugins.core.batch import Batch, Step
from xlm_plugins.core.contracts import Objective
from xlm_plugins.core.errors import RunError, XLMError
from xlm_plugins.data.manifest import Manifest
from xlm_plugins.data.planning import BatchSizes, StreamPlan
from xlm_plugins.data.pools import stream_languages
from xlm_plugins.data.randomness import generator
from xlm_plugins.data.schedule import Schedule, Update
from xlm_plugins.data.shards import ShardReader


class TrainingBatches(Dataset[list[Batch]]):
    """Update number -> this rank's micro-batches.  Picklable, so loader processes can have it.

    The lanes, in order, are split evenly over ranks, and a rank's over its micro-batches.

    :param folder: the data set.
    :param objectives: those that the schedule names.
    :param rank, world_size: which part of the lanes is this process's.
    :param accumulation: micro-batches a rank makes one update of.
    :raises RunError: the lanes cannot be split evenly.
    :raises DataError: a step has no text, too few blocks, or no sentence short enough.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        schedule: Schedule,
        objectives: Mapping[str, Objective],
        sizes: BatchSizes,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        accumulation: int = 1,
    ) -> None:
        self._schedule = schedule
        self._objectives = dict(objectives)
        self._seed = seed
        self._lanes = _lanes_of_rank(sizes.lanes, rank, world_size, accumulation)
        self._reader = ShardReader(folder, manifest)
        self._plans = {
            (part.objective, step): _plan(manifest, objectives[part.objective], step, sizes, seed)
            for part in schedule.plans
            for step in part.steps
        }

    def __getitem__(self, index: int) -> list[Batch]:
        """This rank's micro-batches of one update."""
        update = self._schedule.update(index)
        return [
            Batch.cat([self._lane_batch(update, lane) for lane in lanes]) for lanes in self._lanes
        ]

    def _lane_batch(self, update: Update, lane: int) -> Batch:
        plan = self._plans[update.objective, update.step]
        samples = plan.samples(self._reader, lane, update.occurrence)
        rng = generator(self._seed, "batch", update.index, lane)
        return self._objectives[update.objective].make_batch(samples, update.step, rng)


def load(
    batches: Dataset[list[Batch]], start: int, stop: int, workers: int
) -> Iterator[list[Batch]]:
    """The batches of updates ``start`` to ``stop``, in order.

    :param workers: processes that make batches ahead; 0 makes them in this one.  They are
        spawned, not forked: the trainer has threads, and a fork of those may hang.
    """
    if workers == 0:
        yield from map(batches.__getitem__, range(start, stop))
        return
    for answer in DataLoader(
        _Answers(batches),
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=_leave_signals_to_the_trainer,
        multiprocessing_context="spawn",
    ):
        if isinstance(answer, XLMError):
            raise answer
        yield answer


@dataclass(frozen=True)
class _Answers(Dataset[list[Batch] | XLMError]):
    """Batches, or the user's error in their place: one that a loader process raises would come
    out with that process's traceback for a message."""

    batches: Dataset[list[Batch]]

    def __getitem__(self, index: int) -> list[Batch] | XLMError:
        try:
            return self.batches[index]
        except XLMError as error:
            return error


def _leave_signals_to_the_trainer(worker: int) -> None:
    """Ctrl-C and a scheduler's signals reach loader processes too; the trainer saves first."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def _as_it_is(answer: list[Batch] | XLMError) -> list[Batch] | XLMError:
    return answer


def _lanes_of_rank(lanes: int, rank: int, world_size: int, accumulation: int) -> list[range]:
    """The lanes of each of a rank's micro-batches."""
    n_parts = world_size * accumulation
    if lanes % n_parts:
        raise RunError(
            f"{lanes} lanes cannot be split evenly over {world_size} process(es) "
            f"x {accumulation} micro-batch(es) = {n_parts} parts",
            expected="world size x --accumulation that divides --lanes",
            remedy=f"set --lanes {-(-lanes // n_parts) * n_parts}, "
            "or change --accumulation or the number of processes",
        )
    size = lanes // n_parts
    parts = range(rank * accumulation, (rank + 1) * accumulation)
    return [range(part * size, (part + 1) * size) for part in parts]


def _plan(
    manifest: Manifest, objective: Objective, step: Step, sizes: BatchSizes, seed: int
) -> StreamPlan:
    layout = objective.layout(step)
    stream = manifest.stream("train", stream_languages(layout, step))
    cutting = sizes.cutting(layout, stream, step, manifest.tokenizer.roles["eos"])
    return StreamPlan(stream, cutting, sizes.lanes, (seed, objective.name, str(step)))
