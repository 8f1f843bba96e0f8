"""Shards that vanish while a run reads them: reported, or left out without further effect."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xlm_plugins.contracts.batch import Batch, Layout, LossOutput, Samples, Step, Vocabulary, pack
from xlm_plugins.contracts.objective import Objective
from xlm_plugins.contracts.ragged import Ragged
from xlm_plugins.core.errors import DataError
from xlm_plugins.core.registry import NoOptions
from xlm_plugins.core.selection import LossWeight
from xlm_plugins.data.batches.loader import TrainingBatches, load_batches
from xlm_plugins.data.batches.planning import BatchSizes
from xlm_plugins.data.batches.schedule import Schedule, ScheduledObjective
from xlm_plugins.data.dataset import retry
from xlm_plugins.data.dataset.manifest import (
    Block,
    Manifest,
    Stream,
    TokenizerRecord,
    length_table,
)
from xlm_plugins.data.dataset.shards import ShardReader, ShardWriter

ROLES = {"bos": 0, "eos": 1, "pad": 2, "unk": 3, "mask": 5, "sep": 4}
RECORD = TokenizerRecord("words", "xlm-words", "1.0", "abc", 300, ROLES, list(range(6)))
VOCABULARY = Vocabulary(RECORD.size, ROLES, tuple(RECORD.reserved))
SIZES = BatchSizes(batch_tokens=256, lanes=8, max_length=20, window=16)
N_SHARDS, SHARD_BLOCKS, BLOCK_ROWS = 10, 4, 12
LANGUAGES = {"mono": ("en",), "pairs": ("en", "fr")}
N_UPDATES = 120


class Plain(Objective):
    """Samples as they are, with every token predicted."""

    def __init__(self, name: str) -> None:
        super().__init__(NoOptions(), VOCABULARY, {"en": 0, "fr": 1})
        self.name = name

    def layout(self, step: Step) -> Layout:
        return Layout.STREAM if len(step.languages) == 1 else Layout.PAIR

    def make_batch(self, samples: Samples, step: Step, rng: np.random.Generator) -> Batch:
        rows = functools.reduce(Ragged.joined, samples.sides)
        all_of_them, languages = np.arange(len(rows.values)), rows.filled(0)
        return pack(rows, rows.positions(), languages, all_of_them, rows.values, samples.ids)

    def loss(self, model: object, batch: Batch) -> LossOutput:
        raise NotImplementedError


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Manifest]:
    """Ten shards of four blocks for each of two streams; no pauses between attempts."""
    monkeypatch.setattr(retry, "PAUSES", (0.0, 0.0))
    rng, streams, shards = np.random.default_rng(0), [], []
    for languages in LANGUAGES.values():
        blocks: list[Block] = []
        for _ in range(N_SHARDS):
            path = tmp_path / f"{'-'.join(languages)}-{len(blocks):02d}.tar"
            with ShardWriter(path, len(shards)) as writer:
                for _ in range(SHARD_BLOCKS):
                    key = f"train-{'-'.join(languages)}-{len(blocks) + writer.n_blocks}"
                    writer.add(key, languages, tuple(random_side(rng) for _ in languages))
                written = writer.finish()
            shards.append(written.shard)
            blocks += written.blocks
        streams.append(Stream("train", languages, blocks))
    manifest = Manifest(RECORD, streams, shards)
    (tmp_path / "manifest.json").write_text(manifest.dumps())
    return tmp_path, manifest


def random_side(rng: np.random.Generator) -> Ragged:
    rows = [rng.integers(6, 300, size=n) for n in rng.integers(1, 23, size=BLOCK_ROWS)]
    ragged = Ragged.of(rows)
    return Ragged(ragged.values.astype(np.uint16), ragged.offsets)


def batches_of(
    data: tuple[Path, Manifest], rank: int = 0, world_size: int = 1, *, skip: bool = False
) -> TrainingBatches:
    plans = [
        ScheduledObjective(name, (Step(languages),), (480,), LossWeight(), 0.7)
        for name, languages in LANGUAGES.items()
    ]
    objectives = {name: Plain(name) for name in LANGUAGES}
    return TrainingBatches(
        *data, Schedule(plans, 1), objectives, SIZES, 1, rank, world_size, skip_bad_shards=skip
    )


def rows_of(batch: Batch) -> dict[int, list[int]]:
    """The tokens of each sample."""
    rows = np.split(batch.tokens.numpy(), batch.offsets[1:-1].numpy())
    return {
        i: row.tolist() for i, row in zip(batch.sample_ids.tolist(), rows, strict=True) if i >= 0
    }


def lanes(data: tuple[Path, Manifest], *, skip: bool) -> list[list[dict[int, list[int]]]]:
    """For each update, the samples of each of the eight lanes, by number."""
    ranks = [batches_of(data, rank, 8, skip=skip) for rank in range(8)]
    return [[rows_of(rank[index][0]) for rank in ranks] for index in range(N_UPDATES)]


def lose(data: tuple[Path, Manifest], *names: str) -> None:
    for name in names:
        (data[0] / f"{name}.tar").unlink()


# An error that names shard and rank


DAMAGES = {
    "a shard that is gone": lambda path: path.unlink(),
    "a shard that was cut": lambda path: path.write_bytes(path.read_bytes()[:-1000]),
    "a shard that may not be read": lambda path: (path.unlink(), path.mkdir()),
    "a shard that was overwritten": lambda path: path.write_bytes(bytes(path.stat().st_size)),
}


@pytest.mark.faults
@pytest.mark.parametrize("fault", DAMAGES)
def test_a_bad_shard_is_retried_and_then_reported_with_the_rank(
    data: tuple[Path, Manifest], fault: str, faults: Any, caplog: pytest.LogCaptureFixture
) -> None:
    rank = batches_of(data, 1, 2)
    faults.inject(fault)
    path = data[0] / "en-20.tar"
    DAMAGES[fault](path)
    with pytest.raises(DataError, match=r"^rank 1: .*en-20\.tar") as caught:
        list(load_batches(rank, 0, N_UPDATES, workers=0))
    assert caplog.text.count("trying again") == 2
    assert "--resume" in caught.value.remedy
    assert "--skip-bad-shards" in caught.value.remedy
    faults.survive(fault, lost="the updates since the last checkpoint")


def test_a_shard_that_comes_back_in_time_costs_nothing(
    data: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, away = data[0] / "en-20.tar", data[0] / "away"
    whole = lanes(data, skip=False)
    path.rename(away)

    def sleep(seconds: float) -> None:
        if away.exists():
            away.rename(path)

    monkeypatch.setattr(retry.time, "sleep", sleep)
    assert lanes(data, skip=True) == whole
    assert path.exists()


@pytest.mark.parametrize("member", ["en.tokens.npy", "en.offsets.npy"])
def test_every_changed_byte_that_would_mislead_is_found(
    data: tuple[Path, Manifest], member: str
) -> None:
    """Ids outside the vocabulary, and sentences of other lengths than the manifest records."""
    folder, manifest = data
    block = manifest.streams[0].blocks[0]
    path = folder / manifest.shards[block.shard].path
    offset, size = block.members[member]
    content = bytearray(path.read_bytes())
    content[offset + size - 1] ^= 0x40
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        ShardReader(folder, manifest).read(block)


# Left out


def test_only_what_is_lost_is_missing_and_everything_else_stays_in_place(
    data: tuple[Path, Manifest],
) -> None:
    whole = lanes(data, skip=False)
    lose(data, "en-04", "en-fr-36")
    left = lanes(data, skip=True)
    manifest = data[1]
    lost_rows = range(36 * BLOCK_ROWS, 40 * BLOCK_ROWS)  # pairs are numbered by sentence
    english = manifest.streams[0].blocks
    sizes = [block.n_tokens + block.n_sentences for block in english]
    lost_tokens = range(sum(sizes[:4]), sum(sizes[:8]))  # windows, by their first token
    schedule, n_missing, n_touched = batches_of(data)._schedule, 0, 0
    for index, (before, after) in enumerate(zip(whole, left, strict=True)):
        lost = lost_rows if schedule.update(index).objective == "pairs" else lost_tokens
        for one, two in zip(before, after, strict=True):
            assert two.keys().isdisjoint(lost)
            assert all(one[number] == row for number, row in two.items() if number in one)
            if not any(number in lost for number in one) and one.keys() != two.keys():
                n_touched += 1
            n_missing += len(one) - len(two)
    assert n_missing > 100
    # The cut between two batches may move by a sample, as may a window at a lost block's edge.
    assert n_touched < 0.1 * N_UPDATES * 8


def test_lanes_without_a_lost_block_see_no_difference(data: tuple[Path, Manifest]) -> None:
    whole = lanes(data, skip=False)
    lose(data, "en-04", "en-fr-36")
    left = lanes(data, skip=True)
    same = [
        sum(a == b for a, b in zip(*pair, strict=True)) for pair in zip(whole, left, strict=True)
    ]
    assert sum(same) > 0.4 * 8 * N_UPDATES
    lost = {block.key for s in data[1].streams for block in s.blocks if block.shard in (1, 19)}
    ranks = [batches_of(data, rank, 8, skip=True) for rank in range(8)]
    for index, (one, two) in enumerate(zip(whole, left, strict=True)):
        update = ranks[0]._schedule.update(index)
        for lane, rank in enumerate(ranks):
            plan = rank._plans[update.objective, update.step]
            blocks = plan.place(lane, update.occurrence).blocks
            if lost.isdisjoint(plan.table.stream.blocks[block].key for block in blocks):
                assert one[lane] == two[lane]


@pytest.mark.parametrize("world_size", [2, 4])
def test_any_number_of_ranks_leaves_out_the_same(
    data: tuple[Path, Manifest], world_size: int
) -> None:
    lose(data, "en-04", "en-fr-36", "en-fr-08")
    alone = batches_of(data, skip=True)
    ranks = [batches_of(data, rank, world_size, skip=True) for rank in range(world_size)]
    for index in range(N_UPDATES):
        parts = [rows_of(part) for rank in ranks for part in rank[index]]
        together = dict(itertools.chain.from_iterable(part.items() for part in parts))
        assert together == rows_of(alone[index][0])
    found = set().union(*(rank.take_left_out() for rank in ranks))
    assert found == alone.take_left_out() != set()
    assert alone.take_left_out() == set()


@pytest.mark.parametrize("start", [17, 70])
def test_a_resume_leaves_out_what_the_run_did(data: tuple[Path, Manifest], start: int) -> None:
    """In the middle of pools, whose bad blocks were reported before."""
    lose(data, "en-04", "en-fr-36")

    def run(start: int, stop: int) -> tuple[list[dict[int, list[int]]], set[str]]:
        found = list(load_batches(batches_of(data, skip=True), start, stop, 0))
        rows = [rows_of(batch) for loaded in found for batch in loaded.batches]
        return rows, set().union(*(loaded.left_out for loaded in found))

    whole, uninterrupted = run(0, N_UPDATES)
    (first, before), (second, after) = run(0, start), run(start, N_UPDATES)
    assert first + second == whole
    assert before | after == uninterrupted != set()


def test_a_rank_with_nothing_left_predicts_nothing(data: tuple[Path, Manifest]) -> None:
    lose(data, *(f"en-{number:02d}" for number in range(0, 36, 4)))
    ranks = [batches_of(data, rank, 8, skip=True) for rank in range(8)]
    n_targets = np.array([[rank[index][0].n_targets for rank in ranks] for index in range(60)])
    assert (n_targets == 0).any()
    assert (n_targets.sum(axis=1) == 0).any()
    (empty,) = ranks[int(np.argmin(n_targets[-1]))][59]
    assert len(empty.tokens) >= 1
    assert empty.sample_ids.tolist() == [-1] or empty.n_targets


def test_what_was_left_out_is_reported_and_counted(
    data: tuple[Path, Manifest], caplog: pytest.LogCaptureFixture
) -> None:
    lose(data, "en-04")
    found = load_batches(batches_of(data, 1, 2, skip=True), 0, N_UPDATES, 0)
    left_out = set().union(*(loaded.left_out for loaded in found))
    assert left_out <= {f"train-en-{number}" for number in range(4, 8)} != set()
    assert caplog.text.count("continuing without this shard") == 1
    assert "rank 1: the shard" in caplog.text
    assert "en-04.tar is missing" in caplog.text


def test_a_stream_without_any_shard_ends_the_run(data: tuple[Path, Manifest]) -> None:
    lose(data, *(f"en-{number:02d}" for number in range(0, 40, 4)))
    with pytest.raises(DataError, match=r"no readable shard of train\.en is left"):
        list(load_batches(batches_of(data, skip=True), 0, N_UPDATES, 0))


def test_a_data_set_that_is_gone_ends_the_run(data: tuple[Path, Manifest]) -> None:
    batches = batches_of(data, skip=True)
    for path in data[0].iterdir():
        path.unlink()
    with pytest.raises(DataError, match="is gone"):
        list(load_batches(batches, 0, N_UPDATES, 0))


@pytest.mark.parametrize("n_sides", [1, 2])
def test_placeholder_rows_have_the_lengths_in_the_manifest(n_sides: int) -> None:
    rng = np.random.default_rng(n_sides)
    for _ in range(50):
        sides = tuple(random_side(rng) for _ in range(n_sides))
        block = Block(0, "x", {}, BLOCK_ROWS, length_table(sides))
        assert length_table(block.placeholder_rows(n_sides)).tolist() == block.lengths.tolist()
