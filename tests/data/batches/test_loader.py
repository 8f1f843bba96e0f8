"""Batches from shards on disk: the same for any number of ranks, micro-batches and workers."""

from __future__ import annotations

import dataclasses
import pickle
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from xlm_plugins.contracts.batch import Batch, Layout, LossOutput, Samples, Step, Vocabulary, pack
from xlm_plugins.contracts.objective import Objective
from xlm_plugins.contracts.ragged import Ragged, stack
from xlm_plugins.core.errors import DataError, RunError
from xlm_plugins.core.registry import NoOptions
from xlm_plugins.core.selection import LossWeight
from xlm_plugins.data.batches.evaluation_batches import evaluation_batches
from xlm_plugins.data.batches.loader import TrainingBatches, load_batches
from xlm_plugins.data.batches.planning import BatchSizes
from xlm_plugins.data.batches.schedule import Schedule, ScheduledObjective
from xlm_plugins.data.dataset.manifest import Manifest, Stream, TokenizerRecord
from xlm_plugins.data.dataset.shards import ShardReader, ShardWriter

ROLES = {"bos": 0, "eos": 1, "pad": 2, "unk": 3, "mask": 5, "sep": 4}
RECORD = TokenizerRecord("words", "xlm-words", "1.0", "abc", 300, ROLES, list(range(6)))
VOCABULARY = Vocabulary(RECORD.size, ROLES, tuple(RECORD.reserved))
SIZES = BatchSizes(batch_tokens=256, lanes=8, max_length=20, window=16)
EN, PAIR = Step(("en",)), Step(("fr", "en"))


class Noisy(Objective):
    """Packs all sides of a sample end to end; its targets are random numbers."""

    n_languages = (1, 2)

    def layout(self, step: Step) -> Layout:
        return Layout.STREAM if len(step.languages) == 1 else Layout.PAIR

    def make_batch(self, samples: Samples, step: Step, rng: np.random.Generator) -> Batch:
        rows = samples.sides[0]
        for side in samples.sides[1:]:
            rows = rows.joined(side)
        predicted = np.flatnonzero(rng.random(len(rows.values)) < 0.3)
        targets = rng.integers(1000, size=len(predicted))
        positions, languages = rows.positions(), rows.filled(0)
        return pack(rows, positions, languages, predicted, targets, samples.ids)

    def loss(self, model: object, batch: Batch) -> LossOutput:
        raise NotImplementedError


def objective(name: str = "noisy", cls: type[Objective] = Noisy) -> Objective:
    made = cls(NoOptions(), VOCABULARY, {"en": 0, "fr": 1})
    made.name = name
    return made


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """A data set: 20 blocks per stream for training, 5 with a few long sentences for validation."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    layout = [
        (split, languages, [f"{split}-{'-'.join(languages)}-{block}" for block in range(n_blocks)])
        for split, n_blocks in (("train", 20), ("valid", 5))
        for languages in (("en",), ("en", "fr"))
    ]
    with ShardWriter(folder / "0.tar", 0) as writer:
        for _, languages, keys in layout:
            for key in keys:
                writer.add(key, languages, tuple(random_side(rng) for _ in languages))
        written = writer.finish()
    by_key = {block.key: block for block in written.blocks}
    streams = [Stream(s, languages, [by_key[k] for k in keys]) for s, languages, keys in layout]
    return folder, Manifest(RECORD, streams, [written.shard])


def random_side(rng: np.random.Generator) -> Ragged:
    rows = [rng.integers(6, 300, size=n) for n in rng.integers(1, 23, size=12)]
    ragged = Ragged.of(rows)
    return Ragged(ragged.values.astype(np.uint16), ragged.offsets)


def batches_of(
    data: tuple[Path, Manifest],
    rank: int = 0,
    world_size: int = 1,
    accumulation: int = 1,
    cls: type[Objective] = Noisy,
    sizes: BatchSizes = SIZES,
    seed: int = 1,
) -> TrainingBatches:
    objectives = {name: objective(name, cls) for name in ("mono", "pairs")}
    plans = [
        ScheduledObjective("mono", (EN,), (240,), LossWeight(), 0.7),
        ScheduledObjective("pairs", (PAIR, Step(("en", "fr"))), (240, 240), LossWeight(), 0.7),
    ]
    return TrainingBatches(
        *data, Schedule(plans, seed), objectives, sizes, seed, rank, world_size, accumulation
    )


def content(batch: Batch) -> list[list[int]]:
    names = ("tokens", "positions", "offsets", "predicted", "targets", "sample_ids")
    return [getattr(batch, name).tolist() for name in names]


# Training


def test_batches_hold_what_the_shards_hold(data: tuple[Path, Manifest]) -> None:
    folder, manifest = data
    reader, stream = ShardReader(folder, manifest), manifest.stream("train", ("en", "fr"))
    parts = [reader.read(block) for block in stream.blocks]
    english, french = (stack([part[side] for part in parts]) for side in (0, 1))
    (batch,) = batches_of(data)[1]
    ids = batch.sample_ids.numpy()
    orders = [a.take(ids).joined(b.take(ids)) for a, b in [(english, french), (french, english)]]
    assert batch.tokens.tolist() in [rows.values.tolist() for rows in orders]


@pytest.mark.parametrize("by_length", [False, True])
@pytest.mark.parametrize(("world_size", "accumulation"), [(2, 1), (1, 2), (4, 1), (2, 2), (8, 1)])
def test_the_global_batch_is_the_same_for_any_split(
    data: tuple[Path, Manifest], world_size: int, accumulation: int, by_length: bool
) -> None:
    of_any = partial(batches_of, data, sizes=dataclasses.replace(SIZES, by_length=by_length))
    alone = of_any()
    ranks = [of_any(rank, world_size, accumulation) for rank in range(world_size)]
    for index in range(30):
        parts = [part for rank in ranks for part in rank[index]]
        assert len(parts) == world_size * accumulation
        assert content(Batch.cat(parts)) == content(alone[index][0])


def test_updates_follow_the_schedule_and_never_repeat_a_batch_at_once(
    data: tuple[Path, Manifest],
) -> None:
    batches = batches_of(data)
    seen = [content(batches[index][0]) for index in range(12)]
    assert all(a != b for i, a in enumerate(seen) for b in seen[:i])
    assert {len(row) for row in np.split(*windows_of(batches[0][0]))} == {16}


def test_batches_of_similar_length_are_made_on_request(
    data: tuple[Path, Manifest],
) -> None:
    spread = []
    for by_length in (False, True):
        batches = batches_of(data, sizes=dataclasses.replace(SIZES, by_length=by_length))
        lengths = [batches[index][0].offsets.diff().numpy() for index in range(60)]
        spread.append(np.mean([row.std() for row in lengths]))
    assert spread[1] < spread[0] / 2


def windows_of(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    return batch.tokens.numpy(), batch.offsets[1:-1].numpy()


def test_other_seeds_give_other_batches(data: tuple[Path, Manifest]) -> None:
    one, again, other = (batches_of(data, seed=seed)[5][0] for seed in (1, 1, 2))
    assert content(one) == content(again)
    assert content(one) != content(other)


def test_a_pickled_copy_gives_the_same_batches(data: tuple[Path, Manifest]) -> None:
    batches = batches_of(data)
    walked = [content(batches[index][0]) for index in range(9)]
    copy = pickle.loads(pickle.dumps(batches))
    assert content(copy[8][0]) == walked[8]


def test_loading_without_workers_yields_the_updates_in_order(data: tuple[Path, Manifest]) -> None:
    batches = batches_of(data, accumulation=2)
    loaded = [found.batches for found in load_batches(batches, 3, 7, workers=0)]
    wanted = [batches[index] for index in range(3, 7)]
    assert [list(map(content, parts)) for parts in loaded] == [
        list(map(content, parts)) for parts in wanted
    ]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_give_the_same_batches(
    data: tuple[Path, Manifest], workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Workers import the objective's module by name, like a plugin's.
    (tmp_path / "noisy_for_workers.py").write_text(Path(__file__).read_text())
    monkeypatch.syspath_prepend(str(tmp_path))
    import noisy_for_workers

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    batches = batches_of(data, cls=noisy_for_workers.Noisy)
    loaded = [content(Batch.cat(found.batches)) for found in load_batches(batches, 2, 40, workers)]
    assert loaded == [content(batches[index][0]) for index in range(2, 40)]
    sys.modules.pop("noisy_for_workers")


@pytest.mark.parametrize(("world_size", "accumulation"), [(3, 1), (2, 8), (16, 1)])
def test_lanes_that_cannot_be_split(
    data: tuple[Path, Manifest], world_size: int, accumulation: int
) -> None:
    with pytest.raises(RunError, match="8 lanes cannot be split evenly") as caught:
        batches_of(data, 0, world_size, accumulation)
    lanes = int(caught.value.remedy.split()[2].rstrip(","))
    assert lanes % (world_size * accumulation) == 0


def test_more_lanes_than_blocks(data: tuple[Path, Manifest]) -> None:
    with pytest.raises(DataError, match="20 blocks of text for 21 lanes"):
        batches_of(data, sizes=BatchSizes(256, 21, 20, 16))


# Evaluation


@pytest.mark.parametrize("step", [EN, PAIR])
def test_evaluation_is_the_same_for_any_number_of_ranks(
    data: tuple[Path, Manifest], step: Step
) -> None:
    alone = list(evaluation_batches(*data, "valid", objective(), step, SIZES))
    assert len(alone) > 2
    assert all(counts for _, counts in alone)
    for world_size in (2, 3, 7):
        ranks = [
            list(evaluation_batches(*data, "valid", objective(), step, SIZES, r, world_size))
            for r in range(world_size)
        ]
        assert len({len(rank) for rank in ranks}) == 1
        counted = [b[""] for turn in zip(*ranks, strict=True) for b, counts in turn if counts]
        assert [content(b) for b in counted] == [content(b[""]) for b, _ in alone]


def test_evaluation_measures_every_sentence_but_the_long_ones_in_order(
    data: tuple[Path, Manifest],
) -> None:
    folder, manifest = data
    found = evaluation_batches(folder, manifest, "valid", objective(), PAIR, SIZES)
    ids = torch.cat([batches[""].sample_ids for batches, _ in found]).tolist()
    reader, stream = ShardReader(folder, manifest), manifest.stream("valid", ("en", "fr"))
    parts = [reader.read(block) for block in stream.blocks]
    longest = np.concatenate([np.maximum(*(side.lengths for side in part)) for part in parts])
    assert ids == np.flatnonzero(longest <= SIZES.max_length).tolist()
    assert found.n_dropped == len(longest) - len(ids) > 0


def test_evaluation_of_a_stream_measures_every_token(data: tuple[Path, Manifest]) -> None:
    folder, manifest = data
    found = evaluation_batches(folder, manifest, "valid", objective(), EN, SIZES)
    tokens = torch.cat([batches[""].tokens for batches, _ in found])
    stream = manifest.stream("valid", ("en",))
    assert len(tokens) == stream.n_tokens + stream.n_sentences
    assert found.n_dropped == 0


def test_a_split_without_the_stream_has_nothing_to_evaluate(data: tuple[Path, Manifest]) -> None:
    assert list(evaluation_batches(*data, "test", objective(), EN, SIZES)) == []
    assert list(evaluation_batches(*data, "valid", objective(), Step(("fr",)), SIZES)) == []


def test_a_split_with_long_sentences_only_has_nothing_to_evaluate(
    data: tuple[Path, Manifest],
) -> None:
    sizes = BatchSizes(256, 8, 0, 16)
    assert list(evaluation_batches(*data, "valid", objective(), PAIR, sizes, 1, 2)) == []
