"""Pools: counted without being read, cut into batches, and complete."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
import pytest
from helpers.streams import Text

from xlm_plugins.contracts.batch import Layout, Samples, Step
from xlm_plugins.contracts.ragged import Ragged
from xlm_plugins.data.batches.planning import BatchSizes, StreamPlan
from xlm_plugins.data.batches.pools import BlockTable, Pool, cut, stream_languages
from xlm_plugins.data.dataset.manifest import Block

EOS = 1
SIZES = BatchSizes(batch_tokens=320, lanes=4, max_length=20, window=16)
STREAM, SENTENCE, PAIR = Layout.STREAM, Layout.SENTENCE, Layout.PAIR
LAYOUTS = pytest.mark.parametrize("layout", [STREAM, SENTENCE, PAIR])
SORTED = pytest.mark.parametrize("by_length", [False, True])


def text_of(layout: Layout, n_blocks: int = 7, **how: int) -> Text:
    return Text(n_blocks, ("de", "en") if layout is PAIR else ("en",), **how)


def table_of(text: Text, layout: Layout, *, by_length: bool = False, **how: bool) -> BlockTable:
    sizes = dataclasses.replace(SIZES, by_length=by_length)
    step = Step(("en", "de") if layout is PAIR else ("en",))
    batching = sizes.batching(layout, text.stream, step, EOS)
    return BlockTable.of(text.stream, dataclasses.replace(batching, **how))


def read(table: BlockTable, text: Text, *blocks: int, seed: int = 3) -> Pool:
    return table.read_pool(text, np.array(blocks), np.random.default_rng(seed))


def batches_of(pool: Pool) -> list[Samples]:
    return [pool.batch(index) for index in range(len(pool.bounds) - 1)]


def content(samples: Samples) -> list[list[Any]]:
    """All content of a batch, to be compared."""
    return [samples.ids.tolist(), *([row.tolist() for row in s.rows] for s in samples.sides)]


def running_text(text: Text) -> list[int]:
    return [token for row in text.sides[0].rows for token in [*row.tolist(), EOS]]


# Counts follow from the manifest


class Unread(Text):
    """Its blocks must not be read."""

    def read(self, block: Block) -> tuple[Ragged, ...] | None:
        raise AssertionError(f"block {block.key} was read")


@LAYOUTS
@SORTED
def test_batches_are_counted_without_reading_a_block(layout: Layout, by_length: bool) -> None:
    """For any pool, as many as it is cut into when it is read."""
    text = text_of(layout, 12)
    unread = Unread(12, text.stream.languages)
    table, counted = (table_of(t, layout, by_length=by_length) for t in (text, unread))
    pools = [(0,), (11,), (3, 1), (0, 1, 2, 3, 4, 5, 6, 7), (10, 2, 8)]
    for pool in pools:
        n_batches = len(batches_of(read(table, text, *pool)))
        assert n_batches == int(counted.n_batches(np.array(pool)))
        assert n_batches > 1


@LAYOUTS
def test_pools_are_counted_many_at_once(layout: Layout) -> None:
    """In an array of any shape, in which -1 is an absent block."""
    table = table_of(text_of(layout), layout)
    pools = [[[0, 1], [2, -1]], [[-1, -1], [5, 4]]]
    alone = [[int(table.n_batches(np.array(pool))) for pool in row] for row in pools]
    assert table.n_batches(np.array(pools)).tolist() == alone
    assert alone[0][1] == int(table.n_batches(np.array([2])))
    assert alone[1][0] == 0
    assert min(alone[0] + alone[1][1:]) > 0


@pytest.mark.parametrize(
    ("n_sentences", "n_tokens", "n_batches"),
    [(0, 0, 0), (9, 1, 1), (9, 119, 1), (9, 121, 2), (9, 199, 2), (9, 201, 3), (2, 900, 2)],
)
def test_batches_are_nearest_to_one_per_80_tokens(
    n_sentences: int, n_tokens: int, n_batches: int
) -> None:
    """At least one, and none without a sentence."""
    batching = table_of(text_of(SENTENCE), SENTENCE).batching
    assert batching.n_batches(np.array(n_sentences), np.array(n_tokens)) == n_batches


@pytest.mark.parametrize(("layout", "n_sides"), [(SENTENCE, 1), (PAIR, 2)])
def test_tokens_are_counted_with_their_frames(layout: Layout, n_sides: int) -> None:
    text = text_of(layout)
    table = table_of(text, layout)
    for number, block in enumerate(text.stream.blocks):
        lengths = np.stack([side.lengths for side in text.blocks[block.key]])
        kept = lengths[:, lengths.max(0) <= SIZES.max_length]
        assert table.n_sentences[number] == kept.shape[1] < 30
        assert table.n_tokens[number] == kept.sum() + 2 * n_sides * kept.shape[1]


# What pools hold


@pytest.mark.parametrize("layout", [SENTENCE, PAIR])
@SORTED
def test_pools_of_all_blocks_hold_every_kept_sentence_once(layout: Layout, by_length: bool) -> None:
    text = text_of(layout)
    table = table_of(text, layout, by_length=by_length)
    pools = [read(table, text, *blocks) for blocks in ((4, 0), (6, 2, 1), (3, 5))]
    batches = [batch for pool in pools for batch in batches_of(pool)]
    longest = np.max([side.lengths for side in text.sides], axis=0)
    ids = Counter(number for batch in batches for number in batch.ids.tolist())
    assert ids == Counter(np.flatnonzero(longest <= SIZES.max_length).tolist())
    sides = text.sides[::-1] if layout is PAIR else text.sides  # the step is en-de
    for batch in batches:
        assert content(batch)[1:] == [
            [row.tolist() for row in side.take(batch.ids).rows] for side in sides
        ]


def test_windows_are_the_running_text_from_their_number_on() -> None:
    """Each is complete, begins where its number says, and overlaps with no other."""
    text = text_of(STREAM)
    table, whole = table_of(text, STREAM), running_text(text)
    pool = read(table, text, 2, 3)
    begin, end = table.first[2], table.first[4]
    ring = whole[begin:end] * 2  # the last window may continue at the first token
    seen = []
    for batch in batches_of(pool):
        for number, window in zip(batch.ids.tolist(), batch.sides[0].rows, strict=True):
            assert window.tolist() == ring[number - begin : number - begin + SIZES.window]
            seen += [(number - begin + i) % (end - begin) for i in range(SIZES.window)]
    assert len(set(seen)) == len(seen) > end - begin - SIZES.window


def test_windows_for_evaluation_lose_nothing() -> None:
    text = text_of(STREAM, 5)
    table = table_of(text, STREAM, whole=True)
    pool = table.read_pool(text, np.arange(5), None)
    windows = [row for batch in batches_of(pool) for row in batch.sides[0].rows]
    assert np.concatenate(windows).tolist() == running_text(text)
    assert {len(window) for window in windows[:-1]} == {16}
    assert 0 < len(windows[-1]) <= 16


@LAYOUTS
def test_without_random_numbers_a_pool_keeps_the_order_of_the_text(layout: Layout) -> None:
    text = text_of(layout)
    pool = table_of(text, layout).read_pool(text, np.arange(7), None)
    ids = np.concatenate([batch.ids for batch in batches_of(pool)])
    assert (np.diff(ids) > 0).all()
    shuffled = read(table_of(text, layout), text, *range(7))
    assert not (np.diff(shuffled.ids[shuffled.order]) > 0).all()


# Batches of similar length


@pytest.mark.parametrize("layout", [SENTENCE, PAIR])
def test_grouped_by_length_the_batches_of_a_pool_rise_in_length(layout: Layout) -> None:
    text = text_of(layout)
    framed = [
        [sum(side.lengths + 2 for side in batch.sides) for batch in batches_of(pool)]
        for pool in (
            read(table_of(text, layout, by_length=by_length), text, 0, 3, 5, 6)
            for by_length in (False, True)
        )
    ]
    usual, grouped = framed
    rising = np.concatenate(grouped)
    assert (np.diff(rising) >= 0).all()
    assert Counter(rising.tolist()) == Counter(np.concatenate(usual).tolist())
    assert max(lengths.sum() for lengths in grouped) <= 80 + rising.max()
    assert len(grouped) == len(usual)


def test_sentences_of_one_length_stay_shuffled_when_grouped() -> None:
    text = text_of(SENTENCE, longest=3)
    table = table_of(text, SENTENCE, by_length=True)
    first, second = (batches_of(read(table, text, 0, 1, seed=seed)) for seed in (3, 4))
    assert content(first[0]) != content(second[0])


# A pool is the same wherever it is read


@LAYOUTS
@SORTED
@pytest.mark.parametrize("world_size", [2, 4])
def test_any_number_of_ranks_reads_the_same_pools(
    layout: Layout, by_length: bool, world_size: int
) -> None:
    text = text_of(layout, 40)

    def batches(world_size: int) -> dict[tuple[int, int], list[list[Any]]]:
        """(update, lane) -> its batch; every rank plans for itself and reads its own lanes."""
        found = {}
        for rank in range(world_size):
            batching = table_of(text, layout, by_length=by_length).batching
            plan = StreamPlan(text.stream, batching, SIZES.lanes, (1, "test"))
            lanes = range(rank, SIZES.lanes, world_size)
            found |= {(n, k): content(plan.samples(text, k, n)) for n in range(25) for k in lanes}
        return found

    assert batches(world_size) == batches(1)


@LAYOUTS
def test_a_pool_is_a_function_of_its_blocks_and_random_numbers(layout: Layout) -> None:
    text, again = text_of(layout), text_of(layout)
    table = table_of(text, layout)
    read(table, text, 5, 6)  # what was read before does not matter
    one, other = read(table, text, 1, 2, 4), read(table_of(again, layout), again, 1, 2, 4)
    assert [*map(content, batches_of(one))] == [*map(content, batches_of(other))]
    moved = read(table, text, 1, 2, 4, seed=4)
    assert [*map(content, batches_of(one))] != [*map(content, batches_of(moved))]


# Blocks that cannot be read


class Damaged(Text):
    """Its block 2 cannot be read."""

    def read(self, block: Block) -> tuple[Ragged, ...] | None:
        return None if block.key == "2" else super().read(block)


@LAYOUTS
def test_a_block_left_out_takes_its_own_samples_and_no_others(layout: Layout) -> None:
    """There are as many batches, and every sample with a token of the block is missing."""
    text = text_of(layout)
    table = table_of(text, layout)
    damaged = Damaged(7, text.stream.languages)
    whole, left = (batches_of(read(table, source, 0, 2, 4)) for source in (text, damaged))
    assert len(whole) == len(left)
    gone = {token for side in text.blocks["2"] for token in side.values.tolist()}
    expected = []
    for batch in whole:
        numbers, *sides = content(batch)
        for number, *rows in zip(numbers, *sides, strict=True):
            if not any(gone & set(row) for row in rows):
                expected.append(number)
    found = [number for batch in left for number in batch.ids.tolist()]
    assert sorted(found) == sorted(expected)
    assert len(found) > sum(len(batch.ids) for batch in whole) / 2


# Cutting


@pytest.mark.parametrize(
    ("lengths", "n_batches", "bounds"),
    [
        ([5, 5, 5, 5], 2, [0, 2, 4]),
        ([5, 5, 5, 5], 4, [0, 1, 2, 3, 4]),
        ([1, 1, 1, 9], 2, [0, 3, 4]),
        ([9, 1, 1, 1], 2, [0, 1, 4]),
        ([30, 1, 1, 1], 4, [0, 1, 2, 3, 4]),
        ([1, 1, 1, 30], 4, [0, 1, 2, 3, 4]),
        ([7], 1, [0, 1]),
    ],
)
def test_cut(lengths: list[int], n_batches: int, bounds: list[int]) -> None:
    assert cut(np.array(lengths), n_batches).tolist() == bounds


def test_cut_never_leaves_a_batch_empty_and_keeps_them_even() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        lengths = rng.integers(1, rng.integers(2, 200), size=rng.integers(1, 60))
        n_batches = int(rng.integers(1, len(lengths) + 1))
        bounds = cut(lengths, n_batches)
        assert (bounds[0], bounds[-1], len(bounds)) == (0, len(lengths), n_batches + 1)
        assert (np.diff(bounds) > 0).all()
        if n_batches == 1 or lengths.max() >= lengths.sum() / n_batches:
            continue
        tokens = np.add.reduceat(lengths, bounds[:-1])
        assert np.abs(tokens - lengths.sum() / n_batches).max() <= lengths.max()


def test_which_stream_a_step_reads() -> None:
    assert stream_languages(STREAM, Step(("en",))) == ("en",)
    assert stream_languages(PAIR, Step(("fr", "en"))) == ("fr", "en")
    assert stream_languages(SENTENCE, Step(("en", "fr", "en"))) == ("en",)
