"""Which sentences each lane's batches hold."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest
from helpers.streams import Text

from xlm_plugins.contracts.batch import Layout, Samples, Step
from xlm_plugins.core.errors import DataError
from xlm_plugins.data.batches.planning import BatchSizes, StreamPlan

EOS = 1
SIZES = BatchSizes(batch_tokens=320, lanes=4, max_length=20, window=16)
STREAM, SENTENCE, PAIR = Layout.STREAM, Layout.SENTENCE, Layout.PAIR


def make_plan(
    text: Text,
    layout: Layout = SENTENCE,
    sizes: BatchSizes = SIZES,
    step: str = "en",
    seed: int = 1,
    by_length: bool = False,
) -> StreamPlan:
    sizes = dataclasses.replace(sizes, by_length=by_length)
    batching = sizes.batching(layout, text.stream, Step.parse(step), EOS)
    return StreamPlan(text.stream, batching, sizes.lanes, (seed, "test", step))


def epoch_of(plan: StreamPlan, text: Text, lane: int, epoch: int) -> list[Samples]:
    """All batches of one epoch of one lane."""
    batches, n = [], 0
    while (place := plan.place(lane, n)).epoch <= epoch:
        if place.epoch == epoch:
            batches.append(plan.samples(text, lane, n))
        n += 1
    return batches


def same(one: Samples, two: Samples) -> bool:
    return one.ids.tolist() == two.ids.tolist() and all(
        a.values.tolist() == b.values.tolist() and a.offsets.tolist() == b.offsets.tolist()
        for a, b in zip(one.sides, two.sides, strict=True)
    )


# Sentences and pairs


@pytest.mark.parametrize("by_length", [False, True])
@pytest.mark.parametrize("n_blocks", [4, 9, 70])
def test_the_lanes_of_an_epoch_hold_every_short_sentence_once(
    n_blocks: int, by_length: bool
) -> None:
    text = Text(n_blocks)
    plan = make_plan(text, by_length=by_length)
    for epoch in (0, 1):
        batches = [b for lane in range(4) for b in epoch_of(plan, text, lane, epoch)]
        ids = np.concatenate([batch.ids for batch in batches])
        kept = np.flatnonzero(text.sides[0].lengths <= SIZES.max_length)
        assert sorted(ids.tolist()) == kept.tolist()


def test_a_sample_is_the_sentence_that_its_id_names() -> None:
    text = Text(9, ("de", "en"))
    plan = make_plan(text, PAIR, step="en-de")
    for batch in epoch_of(plan, text, 2, 0):
        german, english = text.sides
        assert batch.sides[0].values.tolist() == english.take(batch.ids).values.tolist()
        assert batch.sides[1].values.tolist() == german.take(batch.ids).values.tolist()


def test_a_pair_with_one_long_side_is_left_out() -> None:
    text = Text(8, ("de", "en"))
    plan = make_plan(text, PAIR, step="de-en")
    seen = {i for lane in range(4) for b in epoch_of(plan, text, lane, 0) for i in b.ids.tolist()}
    longest = np.maximum(*(side.lengths for side in text.sides))
    assert seen == set(np.flatnonzero(longest <= SIZES.max_length).tolist())
    assert 0 < len(seen) < len(longest)


@pytest.mark.parametrize(("layout", "n_sides"), [(SENTENCE, 1), (PAIR, 2)])
def test_global_batches_have_the_requested_number_of_tokens(layout: Layout, n_sides: int) -> None:
    text = Text(16, ("de", "en")[-n_sides:])
    plan = make_plan(text, layout, step="en-de"[: 3 * n_sides - 1])
    tokens = [
        sum(len(side.values) + 2 * side.n_rows for side in plan.samples(text, lane, n).sides)
        for n in range(40)
        for lane in range(4)
    ]
    assert sum(tokens) / 40 == pytest.approx(SIZES.batch_tokens, rel=0.05)


def test_no_batch_is_empty_however_small_a_lanes_share_is() -> None:
    text = Text(8, ("de", "en"))
    sizes = BatchSizes(batch_tokens=8, lanes=8, max_length=20, window=16)
    plan = make_plan(text, PAIR, sizes, "de-en")
    n_samples = [len(plan.samples(text, lane, n).ids) for lane in range(8) for n in range(60)]
    assert set(n_samples) == {1}


# Batches of similar length


def framed(batches: list[Samples]) -> np.ndarray:
    """Tokens of every sample, with its frame."""
    return np.concatenate([sum(side.lengths + 2 for side in batch.sides) for batch in batches])


@pytest.mark.parametrize(("layout", "step"), [(SENTENCE, "en"), (PAIR, "de-en")])
def test_lanes_have_samples_of_similar_length_at_each_update(layout: Layout, step: str) -> None:
    text = Text(70, ("de", "en") if layout is PAIR else ("en",))
    spread = {}
    for by_length in (False, True):
        plan = make_plan(text, layout, step=step, by_length=by_length)
        updates = [framed([plan.samples(text, lane, n) for lane in range(4)]) for n in range(80)]
        spread[by_length] = np.mean([lengths.std() for lengths in updates])
    assert spread[True] < spread[False] / 3


def test_batches_of_similar_length_are_not_in_order_of_length() -> None:
    text = Text(70)
    plan = make_plan(text, by_length=True)
    for epoch in (0, 1):
        means = [framed([batch]).mean() for batch in epoch_of(plan, text, 1, epoch)]
        assert max(means) > 2 * min(means)
        assert abs(np.corrcoef(np.arange(len(means)), means)[0, 1]) < 0.25  # 3 deviations
        assert abs(np.corrcoef(means[1:], means[:-1])[0, 1]) < 0.25


def test_batches_of_similar_length_are_as_many_and_as_large_as_others() -> None:
    text = Text(70)
    usual, alike = (epoch_of(make_plan(text, by_length=b), text, 2, 0) for b in (False, True))
    assert len(usual) == len(alike) > 50
    sizes = np.array([framed([batch]).sum() for batch in alike])
    assert np.abs(sizes - SIZES.batch_tokens / 4).max() <= SIZES.max_length + 2


def test_equally_long_samples_meet_others_in_the_next_epoch() -> None:
    text = Text(4, longest=5, rows=100)  # one block per lane in every epoch
    plan = make_plan(text, by_length=True)
    first, second = (
        {frozenset(b.ids.tolist()) for lane in range(4) for b in epoch_of(plan, text, lane, epoch)}
        for epoch in (0, 1)
    )
    assert len(first & second) < len(first) / 2


# Streams


def running_text(text: Text) -> list[int]:
    return [token for row in text.sides[0].rows for token in [*row.tolist(), EOS]]


def test_windows_are_running_text_from_where_their_ids_say() -> None:
    text = Text(9)
    plan, whole = make_plan(text, STREAM), running_text(text)
    block_ends = set(np.cumsum(plan.table.n_tokens).tolist())
    n_compared = 0
    for n in range(30):
        samples = plan.samples(text, 1, n)
        for start, window in zip(samples.ids.tolist(), samples.sides[0].rows, strict=True):
            assert len(window) == 16
            if not block_ends & set(range(start, start + 16)):  # within a block
                assert window.tolist() == whole[start : start + 16]
                n_compared += 1
    assert n_compared > 50


def test_an_epoch_of_windows_misses_less_than_one_window_per_pool() -> None:
    text = Text(70)
    plan = make_plan(text, STREAM)
    batches = [b for lane in range(4) for b in epoch_of(plan, text, lane, 0)]
    tokens = Counter(t for b in batches for t in b.sides[0].values.tolist() if t != EOS)
    assert set(tokens.values()) == {1}
    n_pools = 4 * plan._n_pools
    assert len(text.sides[0].values) - len(tokens) < n_pools * 16


def test_windows_begin_elsewhere_in_every_epoch() -> None:
    text = Text(4)
    plan = make_plan(text, STREAM)
    starts = [
        {int(i) % 16 for b in epoch_of(plan, text, lane, epoch) for i in b.ids}
        for epoch in (0, 1)
        for lane in range(4)
    ]
    assert len({tuple(sorted(s)) for s in starts}) > 4


def test_a_lane_with_less_than_a_window_to_itself_has_shorter_windows() -> None:
    sizes = BatchSizes(batch_tokens=40, lanes=4, max_length=20, window=16)
    assert sizes.stream_window == 10
    text = Text(8)
    plan = make_plan(text, STREAM, sizes)
    lengths = [plan.samples(text, lane, n).sides[0].lengths for lane in range(4) for n in range(20)]
    assert {tuple(row.tolist()) for row in lengths} == {(10,)}
    assert BatchSizes(8, 8, 100, 256).stream_window == 2


def test_a_text_shorter_than_a_window_is_one_window() -> None:
    text = Text(4, longest=3, rows=2)
    plan = make_plan(text, STREAM)
    samples = plan.samples(text, 0, 5)
    assert samples.sides[0].n_rows == 1
    assert 2 < len(samples.sides[0].values) < 16


# The sequence


@pytest.mark.parametrize(
    ("layout", "by_length"), [(STREAM, False), (SENTENCE, False), (SENTENCE, True)]
)
def test_any_batch_is_found_alone(layout: Layout, by_length: bool) -> None:
    text = Text(20)
    walked = make_plan(text, layout, by_length=by_length)
    batches = [walked.samples(text, 3, n) for n in range(200)]
    for n in (199, 0, 57, 58, 120):
        alone = make_plan(text, layout, by_length=by_length)
        assert same(alone.samples(text, 3, n), batches[n])
        assert same(walked.samples(text, 3, n), batches[n])


def test_the_place_of_the_millionth_batch_is_found_without_reading() -> None:
    text = Text(64)
    plan = make_plan(text)
    place = plan.place(2, 1_000_000)
    assert place.epoch > 10_000
    assert plan.place(2, 1_000_000 - place.batch - 1)[:2] != place[:2]
    assert plan.place(2, 1_000_000 - place.batch).batch == 0


def test_places_continue_over_pools_and_epochs() -> None:
    plan = make_plan(Text(70))
    places = [plan.place(1, n) for n in range(300)]
    assert places[0][:2] == (0, 0)
    for before, after in itertools.pairwise(places):
        if after.batch:
            assert (after.epoch, after.pool, after.batch - 1) == (*before[:2], before.batch)
        else:
            assert (after.epoch, after.pool) > (before.epoch, before.pool)


@pytest.mark.parametrize("change", [{"seed": 2}, {"step": "de-en"}])
def test_other_seeds_and_steps_give_other_sequences(change: dict) -> None:
    text = Text(16, ("de", "en"))
    usual = make_plan(text, PAIR, **{"step": "en-de"})
    other = make_plan(text, PAIR, **{"step": "en-de", **change})
    first, second = (
        [p.samples(text, 0, n).ids.tolist() for n in range(20)] for p in (usual, other)
    )
    assert first != second


def test_one_pool_per_lane_is_kept_in_memory() -> None:
    text = Text(70)
    plan = make_plan(text)
    for n in range(150):
        plan.samples(text, n % 4, n)
    assert set(plan._pools) == {0, 1, 2, 3}
    assert len(plan._deals) <= 2


# Errors


def test_fewer_blocks_than_lanes() -> None:
    with pytest.raises(DataError, match=r"train.en has 3 blocks of text for 4 lanes") as caught:
        make_plan(Text(3))
    assert "--lanes 3" in caught.value.remedy


def test_only_long_sentences() -> None:
    text = Text(8)
    blocks = [dataclasses.replace(b, lengths=np.array([[30, 30, 900]])) for b in text.stream.blocks]
    text.stream = dataclasses.replace(text.stream, blocks=blocks)
    with pytest.raises(DataError, match="no sentence of 1 to 20 tokens"):
        make_plan(text)
