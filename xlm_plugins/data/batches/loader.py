"""Batches for the trainer: this rank's share of every update, with or without loader processes.

The content of a batch depends on the manifest, the seed and the update's index only, so it is the
same for any number of ranks, micro-batches and workers.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import DataLoader, Dataset

from xlm_plugins.contracts.batch import Batch, Layout, Samples, Step
from xlm_plugins.contracts.objective import Objective
from xlm_plugins.contracts.ragged import Ragged
from xlm_plugins.core.errors import DataError, RunError, XLMError
from xlm_plugins.data.batches.keyed_rng import keyed_rng
from xlm_plugins.data.batches.planning import BatchSizes, StreamPlan
from xlm_plugins.data.batches.pools import stream_languages
from xlm_plugins.data.batches.schedule import Schedule, Update
from xlm_plugins.data.dataset.manifest import TRAIN, Manifest
from xlm_plugins.data.dataset.shards import ShardReader
from xlm_plugins.data.dataset.skip_bad_shards import SkippingReader


class TrainingBatches(Dataset[list[Batch]]):
    """This rank's micro-batches by number of the update; picklable, for loader processes.

    The lanes, in order, are split evenly over ranks, and those of a rank over its micro-batches.

    :param folder: the data set.
    :param objectives: those that the schedule names.
    :param rank, world_size: which part of the lanes is this process's.
    :param accumulation: micro-batches per rank and update.
    :param skip_bad_shards: leave out blocks that cannot be read, instead of raising an error.
    :raises RunError: the lanes cannot be split evenly.
    :raises DataError: a step has no text, too few blocks, or no sentence that is short enough.
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
        skip_bad_shards: bool = False,
    ) -> None:
        self._schedule = schedule
        self._objectives = dict(objectives)
        self._seed = seed
        self._lanes = _lanes_of_rank(sizes.lanes, rank, world_size, accumulation)
        self._log_prefix = f"rank {rank}: " if world_size > 1 else ""
        reader = ShardReader(folder, manifest, retry=True, log_prefix=self._log_prefix)
        self._reader = (
            SkippingReader(reader, manifest, self._log_prefix) if skip_bad_shards else reader
        )
        self._plans = {
            (part.objective, step): _plan(manifest, objectives[part.objective], step, sizes, seed)
            for part in schedule.objectives
            for step in part.steps
        }

    def __getitem__(self, index: int) -> list[Batch]:
        """This rank's micro-batches of one update.

        :raises DataError: a shard cannot be read; names it, and the rank if there are several.
        """
        update = self._schedule.update(index)
        try:
            return [self._micro_batch(update, lanes) for lanes in self._lanes]
        except DataError as error:
            raise DataError(
                f"{self._log_prefix}{error.problem}",
                expected=error.expected,
                remedy=f"{error.remedy or 'make the data readable again'}; then resume with "
                "--resume RUN.  --skip-bad-shards leaves out what cannot be read",
            ) from error

    def take_left_out(self) -> set[str]:
        """The keys of the blocks that this process left out since the last call."""
        return self._reader.take_left_out() if isinstance(self._reader, SkippingReader) else set()

    def _micro_batch(self, update: Update, lanes: range) -> Batch:
        found = [self._lane_batch(update, lane) for lane in lanes]
        batches = [batch for batch in found if batch is not None]
        return Batch.cat(batches) if batches else self._empty_batch(update)

    def _lane_batch(self, update: Update, lane: int) -> Batch | None:
        """A lane's share; None if all of it is left out."""
        plan = self._plans[update.objective, update.step]
        samples = plan.samples(self._reader, lane, update.occurrence)
        if not len(samples.ids):
            return None
        rng = keyed_rng(self._seed, "batch", update.index, lane)
        return self._objectives[update.objective].make_batch(samples, update.step, rng)

    def _empty_batch(self, update: Update) -> Batch:
        """A batch without targets, for a rank that must take part in the update all the same.

        It has one sample of two tokens, so that the model never sees a batch without tokens.
        """
        objective = self._objectives[update.objective]
        row = Ragged.of([objective.vocabulary.ordinary[:2]])
        n_sides = 2 if objective.layout(update.step) is Layout.PAIR else 1
        samples = Samples(np.array([-1]), (row,) * n_sides)
        rng = keyed_rng(self._seed, "batch", update.index, "nothing")
        batch = objective.make_batch(samples, update.step, rng)
        return replace(batch, predicted=batch.predicted[:0], targets=batch.targets[:0])


class Loaded(NamedTuple):
    """What is loaded for one update.

    :param batches: this rank's micro-batches.
    :param left_out: keys of blocks that were left out since the loading process's last update.
    """

    batches: list[Batch]
    left_out: set[str]


def load_batches(
    batches: Dataset[list[Batch]], start: int, stop: int, workers: int
) -> Iterator[Loaded]:
    """The batches of updates ``start`` to ``stop``, in order.

    :param workers: processes that make batches ahead of time; 0 makes them in this one.  They are
        spawned, not forked: the trainer has threads, and forking those may hang.
    """
    for answer in _answers(_Answers(batches), range(start, stop), workers):
        if isinstance(answer, XLMError):
            raise answer
        yield answer


@dataclass(frozen=True)
class _Answers(Dataset[Loaded | XLMError]):
    """Batches, or the user's error in their place: the message of an error that is raised in a
    loader process would be that process's traceback."""

    batches: Dataset[list[Batch]]

    def __getitem__(self, index: int) -> Loaded | XLMError:
        try:
            made = self.batches[index]
        except XLMError as error:
            return error
        if isinstance(self.batches, TrainingBatches):
            return Loaded(made, self.batches.take_left_out())
        return Loaded(made, set())


def _answers(answers: _Answers, indices: range, workers: int) -> Iterator[Loaded | XLMError]:
    if workers == 0:
        yield from map(answers.__getitem__, indices)
        return
    trainer, ours = multiprocessing.Pipe(duplex=False)
    with trainer, ours:
        loader = DataLoader(
            answers,
            batch_size=None,
            sampler=indices,
            num_workers=workers,
            collate_fn=_identity,
            worker_init_fn=partial(_init_worker, trainer),
            multiprocessing_context="spawn",
        )
        found = iter(loader)  # kept alive, so that the pipe closes before torch joins processes
        yield from found


def _init_worker(trainer: Connection, worker: int) -> None:
    """Leave signals to the trainer, which saves first; exit when it closes the pipe or dies.

    Torch would wait for whatever the process is doing, such as reading from a dead server.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_exit_with_trainer, args=(trainer,), daemon=True).start()


def _exit_with_trainer(trainer: Connection) -> None:
    with suppress(EOFError):
        trainer.recv_bytes()  # nothing is ever sent: returns when the pipe closes
    os._exit(0)


def _identity(answer: Any) -> Any:
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
    stream = manifest.stream(TRAIN, stream_languages(layout, step))
    batching = sizes.batching(layout, stream, step, manifest.tokenizer.roles["eos"])
    return StreamPlan(stream, batching, sizes.lanes, (seed, objective.name, str(step)))
