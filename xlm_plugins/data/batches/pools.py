"""Pools: a few blocks at a time, cut into samples, and the samples into batches.

How many batches a pool gives follows from the manifest alone (`Batching.n_batches`), so a plan
can count them without reading a block; `read_pool` then reads the blocks and cuts them so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from xlm_plugins.contracts.batch import Layout, Samples, Step
from xlm_plugins.contracts.ragged import IntArray, Ragged, offsets_of, stack
from xlm_plugins.data.dataset.manifest import Block, Stream


class BlockReader(Protocol):
    """What a pool needs of `xlm_plugins.data.dataset.shards.ShardReader`."""

    def read(self, block: Block) -> tuple[Ragged, ...] | None:
        """One `Ragged` for each language of the block's stream, in the stream's order.

        None leaves the block out: its samples are then missing where they would have been.
        """


@dataclass(frozen=True)
class Batching:
    """How one stream is cut into samples and batches for one step.

    Sentences and pairs: those of 1 to ``max_length`` tokens (a pair: its longer side) are
    kept.  A sample counts with the EOS on both ends of each side that objectives add.

    Streams: all sentences, each followed by EOS, end to end, in windows of ``window`` tokens.

    Batches: the samples are laid end to end and cut at equal distances, the nearest number of
    batches to one per ``batch_tokens``, and a sample goes where its first token lies.  Each
    batch gets one sample at least, so none is ever empty.

    :param sides: for each side of a sample, the index of its language in the stream.
    :param whole: keep the stream's last, shorter window; training drops it, evaluation does not.
    :param by_length: lay a pool's samples end to end from the shortest to the longest, so that
        those of a batch are about equally long.
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
        """Sentences kept of a block, and their tokens with those that are added to them."""
        if self.layout is Layout.STREAM:
            return block.n_sentences, block.n_tokens + block.n_sentences
        n_sentences, n_tokens = block.lengths[self.keeps(block.lengths[:, 0]), 1:].sum(axis=0)
        return int(n_sentences), int(n_tokens + 2 * len(self.sides) * n_sentences)

    def keeps(self, longest: IntArray) -> npt.NDArray[np.bool_]:
        """Which sentences, or pairs by their longer side, have a length that is trained on."""
        return (longest > 0) & (longest <= self.max_length)

    def n_batches(self, n_sentences: IntArray, n_tokens: IntArray) -> IntArray:
        """Batches of pools with so many sentences and tokens as `count` counts them.

        :param n_sentences, n_tokens: one entry a pool; any shape, the result has the same.
        """
        streaming = self.layout is Layout.STREAM
        n_samples = self.n_windows(n_tokens) if streaming else n_sentences
        wanted = np.rint(n_tokens / self.batch_tokens).astype(np.int64)
        return np.where(n_tokens > 0, np.clip(wanted, 1, np.maximum(n_samples, 1)), 0)

    def n_windows(self, n_tokens: IntArray) -> IntArray:
        """Windows of so many tokens; a text shorter than a window is one window."""
        spare = self.window - 1 if self.whole else 0
        return np.maximum((n_tokens + spare) // self.window, 1)


@dataclass(frozen=True)
class Pool:
    """The samples of some blocks, and the batches that they are cut in.

    :param ids: number of each sample in its stream. Shape: (n_samples,)
    :param sides: the samples, one row each.
    :param order: samples, batch after batch. Shape: (n_kept,)
    :param bounds: where batches begin in ``order``, and its end. Shape: (n_batches + 1,)
    :param lost: samples that no batch has, as their block is left out. Shape: (n_samples,)
    """

    ids: IntArray
    sides: tuple[Ragged, ...]
    order: IntArray
    bounds: IntArray
    lost: npt.NDArray[np.bool_]

    def batch(self, index: int) -> Samples:
        """One batch's samples; none where all of them are lost."""
        rows = self.order[self.bounds[index] : self.bounds[index + 1]]
        rows = rows[~self.lost[rows]]
        return Samples(self.ids[rows], tuple(side.take(rows) for side in self.sides))


class _Part(NamedTuple):
    """A block's rows, or others in their place."""

    sides: tuple[Ragged, ...]
    lost: bool


@dataclass(frozen=True)
class BlockTable:
    """Per block of a stream, what `Batching.count` gives, and the number of its first sample.

    The arrays have one more entry, all 0, for a block that is not there. Shape: (n_blocks + 1,)
    """

    stream: Stream
    batching: Batching
    n_sentences: IntArray
    n_tokens: IntArray
    first: IntArray

    @classmethod
    def of(cls, stream: Stream, batching: Batching) -> BlockTable:
        """Count every block of a stream."""
        counts = np.array([*map(batching.count, stream.blocks), (0, 0)], np.int64)
        streaming = batching.layout is Layout.STREAM
        sizes = counts[:-1, 1] if streaming else [block.n_sentences for block in stream.blocks]
        return cls(stream, batching, counts[:, 0], counts[:, 1], offsets_of(np.asarray(sizes)))

    def n_batches(self, blocks: IntArray) -> IntArray:
        """Batches of each pool. Shape: (..., pool_size) block numbers -> (...)"""
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
            keeps the text's own order.
        :raises DataError: as the reader.
        """
        batching = self.batching
        parts = [self._read_block(reader, block) for block in blocks]
        sides = tuple(stack([part.sides[side] for part in parts]) for side in batching.sides)
        lost = np.repeat([part.lost for part in parts], [part.sides[0].n_rows for part in parts])
        if batching.layout is Layout.STREAM:
            ends = sides[0].offsets[1:].astype(np.int64)
            values = np.insert(sides[0].values, ends, batching.eos)
            return self._windows(blocks, values, np.repeat(lost, sides[0].lengths + 1), rng)
        return self._sentences(blocks, sides, lost, rng)

    def _read_block(self, reader: BlockReader, number: int) -> _Part:
        block = self.stream.blocks[number]
        sides = reader.read(block)
        if sides is None:
            return _Part(block.placeholder_rows(len(self.stream.languages)), lost=True)
        return _Part(sides, lost=False)

    def _windows(
        self,
        blocks: IntArray,
        values: IntArray,
        lost: npt.NDArray[np.bool_],
        rng: np.random.Generator | None,
    ) -> Pool:
        """Windows of a text that is closed to a ring and opened anew at a random place.

        :param lost: of each token, whether its block is left out.
        """
        n_tokens = len(values)
        opening = int(rng.integers(n_tokens)) if rng else 0
        n_windows = int(self.batching.n_windows(np.asarray(n_tokens)))
        offsets = np.minimum(np.arange(n_windows + 1) * self.batching.window, n_tokens)
        windows = Ragged(np.roll(values, -opening)[: offsets[-1]], offsets)
        order = rng.permutation(windows.n_rows) if rng else np.arange(windows.n_rows)
        ids = self._numbers(blocks, (offsets[:-1] + opening) % n_tokens, self.n_tokens)
        touched = np.logical_or.reduceat(np.roll(lost, -opening)[: offsets[-1]], offsets[:-1])
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
        """Numbers within the stream for places within the pool, all blocks end to end."""
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
            rising = np.argsort(lengths, kind="stable")  # equally long ones stay shuffled
            order, lengths = order[rising], lengths[rising]
        n_batches = int(self.n_batches(np.asarray(blocks)))
        return Pool(ids, sides, order, cut(lengths, n_batches), lost)


def stream_languages(layout: Layout, step: Step) -> tuple[str, ...]:
    """The languages of the stream that a step reads: its pair, or its first language."""
    return step.languages[:2] if layout is Layout.PAIR else step.languages[:1]


def cut(lengths: IntArray, n_batches: int) -> IntArray:
    """Cut samples, end to end, into batches of about equal length, none of them empty.

    A sample belongs to the batch in whose equal share of the whole its first token lies; where
    that would leave a batch without a sample, the cut moves on to the next sample.

    :param lengths: of the samples, in order. Shape: (n_samples,)
    :param n_batches: at most n_samples.
    :returns: the first sample of each batch, and n_samples. Shape: (n_batches + 1,)
    """
    offsets = offsets_of(lengths)
    index = np.arange(n_batches)
    wanted = np.searchsorted(offsets[:-1], index * (offsets[-1] / max(n_batches, 1)))
    rising = np.maximum.accumulate(wanted - index) + index
    return np.append(np.minimum(rising, len(lengths) - n_batches + index), len(lengths))
