"""Which blocks each lane reads when: finds any batch of any update without reading those before.

A global batch is planned in *lanes*.  In every epoch the blocks of a stream are permuted and
dealt to the lanes; a lane groups its blocks in pools of about eight, and each pool is cut into
batches of about ``batch_tokens / lanes`` tokens (`xlm_plugins.data.batches.pools`).  A lane goes
through its own epochs, one pool after another, so every lane has a batch for every update, however
much text it has.  The number of batches follows from the manifest, so a lane's n-th batch is found
by summing counts: the sequence is a pure function of (manifest, sizes, seed), whatever the number
of ranks and loader workers.

When pools are sorted by length, the order of their batches is still random, but at each update
all lanes have short samples, or all have long ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from xlm_plugins.contracts.batch import Layout, Samples, Step
from xlm_plugins.contracts.ragged import IntArray
from xlm_plugins.core.errors import DataError
from xlm_plugins.data.batches.keyed_rng import keyed_rng
from xlm_plugins.data.batches.pools import Batching, BlockReader, BlockTable, Pool
from xlm_plugins.data.dataset.manifest import Stream

POOL_BLOCKS = 8
_DEALT_AT_ONCE = 2**14
_DEALS_KEPT = 2
_DRAWN_AT_ONCE = 2**12


@dataclass(frozen=True)
class BatchSizes:
    """How large batches and samples are.

    :param batch_tokens: average number of tokens in a global batch.
    :param lanes: number of parts that a global batch is planned in.
    :param max_length: longest sentence to train on, in tokens without its frame.
    :param window: maximum tokens per window of running text.
    :param by_length: whether to batch sentences of similar length for training.
    """

    batch_tokens: int
    lanes: int
    max_length: int
    window: int
    by_length: bool = False

    @property
    def stream_window(self) -> int:
        """Tokens per window: ``window``, or a lane's share of the batch if that is less.

        Evaluation uses the same windows, so that it needs no position that training does not
        reach.  There are at least two tokens, or there would be nothing to predict.
        """
        return max(2, min(self.window, self.batch_tokens // self.lanes))

    def batching(self, layout: Layout, stream: Stream, step: Step, eos: int) -> Batching:
        """How each lane batches the stream that a step reads."""
        n_sides = 2 if layout is Layout.PAIR else 1
        sides = tuple(stream.languages.index(code) for code in step.languages[:n_sides])
        share = self.batch_tokens / self.lanes
        by_length = self.by_length and layout is not Layout.STREAM
        return Batching(
            layout, sides, eos, self.max_length, self.stream_window, share, by_length=by_length
        )


class Place(NamedTuple):
    """Where a lane's batch lies: the epoch, the pool and its blocks, the batch in the pool."""

    epoch: int
    pool: int
    blocks: IntArray
    batch: int


class _Deal(NamedTuple):
    """The blocks of some epochs, dealt to lanes and pools.

    :param blocks: block numbers. Shape: (n_epochs, lanes, n_pools, pool_size)
    :param n_batches: number of batches in each pool. Shape: (n_epochs, lanes, n_pools)
    """

    blocks: IntArray
    n_batches: IntArray


class StreamPlan:
    """The endless sequence of batches that each lane draws from one stream.

    Memory: at most one pool of blocks for each lane in use, whatever the size of the corpus.

    :param key: the random seed and a name; different names give different sequences.
    :raises DataError: fewer blocks than lanes, or no sentence short enough to train on.
    """

    def __init__(
        self, stream: Stream, batching: Batching, lanes: int, key: tuple[int | str, ...]
    ) -> None:
        self.table = BlockTable.of(stream, batching)
        self.lanes = lanes
        self._key = key
        _check_stream(self.table, lanes)
        blocks_per_lane = -(-len(stream.blocks) // lanes)
        self._n_pools = -(-blocks_per_lane // POOL_BLOCKS)
        self._pool_size = -(-blocks_per_lane // self._n_pools)
        self._epochs_at_once = max(1, _DEALT_AT_ONCE // len(stream.blocks))
        # Batches of each lane before each deal counted so far. Shape of each: (lanes,)
        self._n_before = [np.zeros(lanes, np.int64)]
        self._deals: dict[int, _Deal] = {}
        self._pools: dict[int, tuple[tuple[int, int], Pool]] = {}

    def samples(self, reader: BlockReader, lane: int, n: int) -> Samples:
        """A lane's n-th batch, counted from 0.

        :raises DataError: the blocks do not hold what the manifest says.
        """
        place = self.place(lane, n)
        name = (place.epoch, place.pool)
        if lane not in self._pools or self._pools[lane][0] != name:
            self._pools.pop(lane, None)  # before the next one is read: never keep both in memory
            rng = keyed_rng(*self._key, "pool", place.epoch, lane, place.pool)
            self._pools[lane] = (name, self.table.read_pool(reader, place.blocks, rng))
        return self._pools[lane][1].batch(place.batch)

    def place(self, lane: int, n: int) -> Place:
        """Where a lane's n-th batch lies; reads no block."""
        number = self._deal_with(lane, n)
        deal = self._deal(number)
        epochs = deal.n_batches[:, lane].sum(axis=-1)
        epoch, rest = _find(epochs, n - int(self._n_before[number][lane]))
        pool, turn = _find(deal.n_batches[epoch, lane], rest)
        n_batches = int(deal.n_batches[epoch, lane, pool])
        batch = self._batch_at(turn, n - turn, n_batches) if self.table.batching.by_length else turn
        blocks = deal.blocks[epoch, lane, pool]
        present = blocks[blocks < len(self.table.stream.blocks)]
        return Place(number * self._epochs_at_once + epoch, pool, present, batch)

    def _batch_at(self, turn: int, first: int, n_batches: int) -> int:
        """Which batch of a pool sorted by length comes at a turn.

        A random number is drawn for every n, the same for all lanes.  Among a pool's n, the one
        with the smallest number gets the first batch, that with the shortest samples, and so on:
        each batch comes once, and where one lane has short samples, the others do too.

        :param turn: place of n among the pool's.
        :param first: the first n of the pool.
        """
        chunks = range(first // _DRAWN_AT_ONCE, (first + n_batches - 1) // _DRAWN_AT_ONCE + 1)
        drawn = [keyed_rng(*self._key, "length", chunk).random(_DRAWN_AT_ONCE) for chunk in chunks]
        of_pool = np.concatenate(drawn)[first % _DRAWN_AT_ONCE :][:n_batches]
        return int(np.count_nonzero(of_pool < of_pool[turn]))

    def _deal_with(self, lane: int, n: int) -> int:
        """The deal that contains a lane's n-th batch; deals are counted once and cached."""
        while self._n_before[-1][lane] <= n:
            totals = self._deal(len(self._n_before) - 1).n_batches.sum(axis=(0, 2))
            self._n_before.append(self._n_before[-1] + totals)
        number = len(self._n_before) - 2
        while self._n_before[number][lane] > n:
            number -= 1
        return number

    def _deal(self, number: int) -> _Deal:
        """A deal; the last ones are cached, as lanes move to the next one at different times."""
        if number not in self._deals:
            if len(self._deals) == _DEALS_KEPT:
                del self._deals[next(iter(self._deals))]
            self._deals[number] = self._make_deal(number)
        return self._deals[number]

    def _make_deal(self, number: int) -> _Deal:
        """Permute the blocks of some epochs, and deal them evenly to lanes and pools."""
        n_blocks, n_epochs = len(self.table.stream.blocks), self._epochs_at_once
        shape = (n_epochs, self._pool_size, self._n_pools, self.lanes)
        dealt = np.full((n_epochs, self._pool_size * self._n_pools * self.lanes), n_blocks)
        rng = keyed_rng(*self._key, "deal", number)
        in_order = np.tile(np.arange(n_blocks), (n_epochs, 1))
        dealt[:, :n_blocks] = rng.permuted(in_order, axis=1)
        blocks = dealt.reshape(shape).transpose(0, 3, 2, 1)
        return _Deal(blocks, self.table.n_batches(blocks))


def _find(counts: IntArray, n: int) -> tuple[int, int]:
    """The group that contains item n, when groups of these sizes lie end to end, and its place."""
    ends = np.cumsum(counts)
    index = int(np.searchsorted(ends, n, side="right"))
    return index, n - int(ends[index] - counts[index])


def _check_stream(table: BlockTable, lanes: int) -> None:
    stream, n_blocks = table.stream, len(table.stream.blocks)
    if n_blocks < lanes:
        raise DataError(
            f"{stream.name} has {n_blocks} blocks of text for {lanes} lanes "
            f"({stream.n_sentences} sentences)",
            expected="at least one block per lane",
            remedy=f"train with --lanes {max(n_blocks, 1)}, or prepare again with more text",
        )
    if not table.n_tokens.any():
        raise DataError(
            f"{stream.name} has no sentence of 1 to {table.batching.max_length} tokens",
            remedy="raise --max-length, or prepare text that is split into sentences",
        )
