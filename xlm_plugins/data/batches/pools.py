"""Pools: a few blocks at a time are cut into samples, and the samples into batches.

The number of batches in a pool follows from the manifest alone (`Batching.n_batches`), so a plan
can count them without reading a block; `BlockTable.read_pool` then reads the blocks and cuts them
accordingly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from xlm_plugins.contracts.batch import Layout, Samples, Step
from xlm_plugins.contracts.ragged import IntArray, Ragged, offsets_of, stack
from xlm_plugins.data.dataset.manifest import Block, Stream


class BlockReader(Protocol):
    """What a pool needs of a `xlm_plugins.data.dataset.shards.ShardReader`."""

    def read(self, block: Block) -> tuple[Ragged, ...] | None:
        """One `Ragged` for each language of the block's stream, in the stream's order.

        None leaves the block out: its samples are then missing from their batches.
        """


@dataclass(frozen=True)
class Batching:
    """How one stream is cut into samples and batches for one step.

    Sentences and pairs: those of 1 to ``max_length`` tokens (for a pair, on its longer side) are
    kept.  The length of a sample includes the EOS that objectives add on both ends of each side.

    Streams: all sentences, each followed by EOS, are concatenated and cut into windows of
    ``window`` tokens.

    Batches: the samples are laid end to end and cut at equal distances, into as many batches as
    come closest to ``batch_tokens`` each; a sample belongs where its first token lies.  Each batch
    gets at least one sample, so that none is ever empty.

    :param sides: for each side of a sample, the index of its language in the stream.
    :param whole: keep the stream's last, shorter window, as evaluation does; training drops it.
    :param by_length: sort a pool's samples by length, so that those of a batch are about equally
        long.
    """

    layout: Layout
    sides: tuple[int, ...]
    eos: int
    max_length: int
    window: int
    batch_tokens: float
    whole: bool = False
    by_length: bool = False

    def count(self, block: Block) -> tuple[int, int]:
        """Number of sentences kept of a block, and of their tokens with those that are added."""
        if self.layout is Layout.STREAM:
            return block.n_sentences, block.n_tokens + block.n_sentences
        n_sentences, n_tokens = block.lengths[self.keeps(block.lengths[:, 0]), 1:].sum(axis=0)
        return int(n_sentences), int(n_tokens + 2 * len(self.sides) * n_sentences)

    def keeps(self, longest: IntArray) -> npt.NDArray[np.bool_]:
        """Whether each sentence is kept; the length of a pair is that of its longer side."""
        return (longest > 0) & (longest <= self.max_length)

    def n_batches(self, n_sentences: IntArray, n_tokens: IntArray) -> IntArray:
        """Number of batches in pools with so many sentences and tokens, as `count` counts them.

        :param n_sentences, n_tokens: one entry per pool; any shape, which the result has too.
        """
        streaming = self.layout is Layout.STREAM
        n_samples = self.n_windows(n_tokens) if streaming else n_sentences
        wanted = np.rint(n_tokens / self.batch_tokens).astype(np.int64)
        return np.where(n_tokens > 0, np.clip(wanted, 1, np.maximum(n_samples, 1)), 0)

    def n_windows(self, n_tokens: IntArray) -> IntArray:
        """Number of windows of so many tokens; a text shorter than a window is one window."""
        spare = self.window - 1 if self.whole else 0
        return np.maximum((n_tokens + spare) // self.window, 1)


@dataclass(frozen=True)
class Pool:
    """The samples of some blocks, and the batches that they are divided into.

    :param ids: number of each sample in its stream. Shape: (n_samples,)
    :param sides: the samples, one row each.
    :param order: samples, batch after batch. Shape: (n_kept,)
    :param bounds: where batches begin in ``order``, and its end. Shape: (n_batches + 1,)
    :param lost: whether a sample is missing because its block is left out. Shape: (n_samples,)
    """

    ids: IntArray
    sides: tuple[Ragged, ...]
    order: IntArray
    bounds: IntArray
    lost: npt.NDArray[np.bool_]

    def batch(self, index: int) -> Samples:
        """The samples of one batch; empty if all of them are lost."""
        rows = self.order[self.bounds[index] : self.bounds[index + 1]]
        rows = rows[~self.lost[rows]]
        return Samples(self.ids[rows], tuple(side.take(rows) for side in self.sides))


@dataclass(frozen=True)
class BlockTable:
    """For each block of a stream, the counts of `Batching.count` and its first sample's number.

    The arrays have one more entry for an absent block, with counts of 0. Shape: (n_blocks + 1,)
    """

    stream: Stream
    batching: Batching
    n_sentences: IntArray
    n_tokens: IntArray
    first: IntArray

    @classmethod
    def of(cls, stream: Stream, batching: Batching) -> BlockTable:
        """The table of a stream."""
        counts = np.array([*map(batching.count, stream.blocks), (0, 0)], np.int64)
        streaming = batching.layout is Layout.STREAM
        sizes = counts[:-1, 1] if streaming else [block.n_sentences for block in stream.blocks]
        return cls(stream, batching, counts[:, 0], counts[:, 1], offsets_of(np.asarray(sizes)))

    def n_batches(self, blocks: IntArray) -> IntArray:
        """Number of batches in each pool. Shape: (..., pool_size) block numbers -> (...)"""
        batching = self.batching
        return batching.n_batches(
            self.n_sentences[blocks].sum(axis=-1), self.n_tokens[blocks].sum(axis=-1)
        )

    def read_pool(
        self, reader: BlockReader, blocks: IntArray, rng: np.random.Generator | None
    ) -> Pool:
        """Read some blocks and cut them.

        :param blocks: their numbers.
        :param rng: shuffles the samples, and draws where a stream's first window begins; None
            keeps the order of the text.
        :raises DataError: raised by the reader.
        """
        batching = self.batching
        stored, n_sides = [self.stream.blocks[n] for n in blocks], len(self.stream.languages)
        read = [reader.read(block) for block in stored]
        parts = [
            block.placeholder_rows(n_sides) if rows is None else rows
            for block, rows in zip(stored, read, strict=True)
        ]
        sides = tuple(stack([part[side] for part in parts]) for side in batching.sides)
        lost = np.repeat([rows is None for rows in read], [part[0].n_rows for part in parts])
        if batching.layout is Layout.STREAM:
            ends = sides[0].offsets[1:].astype(np.int64)
            values = np.insert(sides[0].values, ends, batching.eos)
            return self._windows(blocks, values, np.repeat(lost, sides[0].lengths + 1), rng)
        return self._sentences(blocks, sides, lost, rng)

    def _windows(
        self,
        blocks: IntArray,
        values: IntArray,
        lost: npt.NDArray[np.bool_],
        rng: np.random.Generator | None,
    ) -> Pool:
        """Windows of a text that is rotated by a random offset.

        :param lost: whether each token's block is left out.
        """
        n_tokens = len(values)
        shift = int(rng.integers(n_tokens)) if rng else 0
        n_windows = int(self.batching.n_windows(np.asarray(n_tokens)))
        offsets = np.minimum(np.arange(n_windows + 1) * self.batching.window, n_tokens)
        windows = Ragged(np.roll(values, -shift)[: offsets[-1]], offsets)
        order = rng.permutation(windows.n_rows) if rng else np.arange(windows.n_rows)
        ids = self._numbers(blocks, (offsets[:-1] + shift) % n_tokens, self.n_tokens)
        touched = np.logical_or.reduceat(np.roll(lost, -shift)[: offsets[-1]], offsets[:-1])
        return self._pool(blocks, ids, (windows,), order, windows.lengths[order], touched)

    def _sentences(
        self,
        blocks: IntArray,
        sides: tuple[Ragged, ...],
        lost: npt.NDArray[np.bool_],
        rng: np.random.Generator | None,
    ) -> Pool:
        lengths = np.stack([side.lengths.astype(np.int64) for side in sides])
        kept = np.flatnonzero(self.batching.keeps(lengths.max(axis=0)))
        order = rng.permutation(kept) if rng else kept
        framed = lengths.sum(axis=0) + 2 * len(sides)
        sizes = np.diff(self.first, append=self.first[-1])
        ids = self._numbers(blocks, np.arange(sides[0].n_rows), sizes)
        return self._pool(blocks, ids, sides, order, framed[order], lost)

    def _numbers(self, blocks: IntArray, places: IntArray, sizes: IntArray) -> IntArray:
        """Sample numbers in the stream, for places in the pool with all blocks end to end."""
        begins = offsets_of(sizes[blocks])
        block = np.searchsorted(begins, places, side="right") - 1
        numbers: IntArray = self.first[blocks][block] + places - begins[block]
        return numbers

    def _pool(
        self,
        blocks: IntArray,
        ids: IntArray,
        sides: tuple[Ragged, ...],
        order: IntArray,
        lengths: IntArray,
        lost: npt.NDArray[np.bool_],
    ) -> Pool:
        if self.batching.by_length:
            ascending = np.argsort(lengths, kind="stable")  # equally long ones stay shuffled
            order, lengths = order[ascending], lengths[ascending]
        n_batches = int(self.n_batches(np.asarray(blocks)))
        return Pool(ids, sides, order, cut(lengths, n_batches), lost)


def stream_languages(layout: Layout, step: Step) -> tuple[str, ...]:
    """The languages of the stream that a step reads: its pair, or its first language."""
    return step.languages[:2] if layout is Layout.PAIR else step.languages[:1]


def cut(lengths: IntArray, n_batches: int) -> IntArray:
    """Cut samples, laid end to end, into non-empty batches of about equal length.

    Each batch is an equal share of the total length, and a sample belongs to the batch in which
    its first token lies; where that would leave a batch empty, the cut moves to the next sample.

    :param lengths: of the samples, in order. Shape: (n_samples,)
    :param n_batches: at most n_samples.
    :returns: the first sample of each batch, and n_samples. Shape: (n_batches + 1,)
    """
    offsets = offsets_of(lengths)
    index = np.arange(n_batches)
    wanted = np.searchsorted(offsets[:-1], index * (offsets[-1] / max(n_batches, 1)))
    rising = np.maximum.accumulate(wanted - index) + index
    return np.append(np.minimum(rising, len(lengths) - n_batches + index), len(lengths))
