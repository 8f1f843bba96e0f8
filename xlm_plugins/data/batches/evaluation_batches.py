"""Batches for evaluation: a whole split, in order, always the same.

Unlike in training, nothing is shuffled, and only sentences over ``max_length`` are left out.  The
masks of a batch are keyed by the split, the step and the batch's number, so that every evaluation,
on any number of ranks, predicts the same positions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xlm_plugins.contracts.batch import Batch, Step
from xlm_plugins.contracts.objective import Objective
from xlm_plugins.contracts.ragged import IntArray
from xlm_plugins.data.batches.keyed_rng import keyed_rng
from xlm_plugins.data.batches.planning import BatchSizes
from xlm_plugins.data.batches.pools import BlockTable, Pool, stream_languages
from xlm_plugins.data.dataset.manifest import Manifest
from xlm_plugins.data.dataset.shards import ShardReader

POOL_TOKENS = 2**20
MOST_TOKENS = 2**14
"""Maximum tokens per batch: a global training batch may be far more than one rank can hold."""


@dataclass(frozen=True)
class EvaluationBatches:
    """This rank's batches of one objective and step.

    Batch i belongs to rank ``i % world_size``.  All ranks get the same number of batches, as
    collective operations require: where a rank has one too few, it gets one that does not count.

    :param pools: the blocks that are read together, in order.
    :param n_batches: number of batches in each pool.
    """

    reader: ShardReader
    table: BlockTable
    pools: list[IntArray]
    n_batches: list[int]
    objective: Objective
    step: Step
    rank: int
    world_size: int

    @property
    def n_total(self) -> int:
        """Batches of all ranks."""
        return sum(self.n_batches)

    @property
    def n_dropped(self) -> int:
        """Sentences that are left out because they are empty or over ``max_length``."""
        return self.table.stream.n_sentences - int(self.table.n_sentences.sum())

    def __len__(self) -> int:
        return -(-self.n_total // self.world_size)

    def __iter__(self) -> Iterator[tuple[dict[str, Batch], bool]]:
        """Batches by key (see `Objective.evaluation_batches`), and whether they count."""
        ends = np.cumsum(self.n_batches)
        current: tuple[int, Pool] | None = None
        for index in range(self.rank, len(self) * self.world_size, self.world_size):
            counts = index < self.n_total
            number = min(index, self.n_total - 1)
            pool = int(np.searchsorted(ends, number, side="right"))
            if current is None or current[0] != pool:
                current = (pool, self.table.read_pool(self.reader, self.pools[pool], None))
            samples = current[1].batch(number - int(ends[pool]) + self.n_batches[pool])
            rng = keyed_rng("evaluation", self.table.stream.split, str(self.step), number)
            yield self.objective.evaluation_batches(samples, self.step, rng), counts


def evaluation_batches(
    folder: Path,
    manifest: Manifest,
    split: str,
    objective: Objective,
    step: Step,
    sizes: BatchSizes,
    rank: int = 0,
    world_size: int = 1,
) -> EvaluationBatches | list[tuple[dict[str, Batch], bool]]:
    """This rank's batches of a split, and whether each counts.

    A batch has about ``batch_tokens`` tokens, but at most `MOST_TOKENS`.

    :returns: an iterable, empty if the split has no text for the step.
    """
    layout = objective.layout(step)
    languages = stream_languages(layout, step)
    have = {frozenset(s.languages) for s in manifest.streams if s.split == split}
    if frozenset(languages) not in have:
        return []
    stream = manifest.stream(split, languages)
    batching = dataclasses.replace(
        sizes.batching(layout, stream, step, manifest.tokenizer.roles["eos"]),
        batch_tokens=min(sizes.batch_tokens, MOST_TOKENS),
        whole=True,
        by_length=False,
    )
    table = BlockTable.of(stream, batching)
    pools = _pools(table)
    n_batches = [int(table.n_batches(blocks)) for blocks in pools]
    reader = ShardReader(folder, manifest, retry=True)
    return EvaluationBatches(reader, table, pools, n_batches, objective, step, rank, world_size)


def _pools(table: BlockTable) -> list[IntArray]:
    """Consecutive blocks of up to `POOL_TOKENS` tokens: memory does not grow with the split."""
    n_blocks = len(table.stream.blocks)
    pool_of_block = np.cumsum(table.n_tokens[:-1]) // POOL_TOKENS
    return np.split(np.arange(n_blocks), np.flatnonzero(np.diff(pool_of_block)) + 1)
