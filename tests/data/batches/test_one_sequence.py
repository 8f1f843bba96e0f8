"""One sequence of global batches: the same samples and masks for any number of processes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from xlm_plugins.config.settings import resolve
from xlm_plugins.contracts.batch import Batch
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.data.batches.loader import TrainingBatches, load_batches
from xlm_plugins.data.batches.pools import BlockReader
from xlm_plugins.data.dataset.manifest import Manifest
from xlm_plugins.data.dataset.shards import ShardReader
from xlm_plugins.training.pretraining.plan import PretrainingPlan, make_plan

if TYPE_CHECKING:
    from xlm_plugins.contracts.ragged import Ragged
    from xlm_plugins.data.dataset.manifest import Block

OBJECTIVES = ("mlm:en,fr", "tlm:en-fr", "ae:en")  # windows, pairs, and noise on sentences
MILLION = 1_000_000
Sample = tuple[object, ...]


def plan_of(data: Path) -> PretrainingPlan:
    """The plan that `xlm train` makes before it builds a model."""
    train = {"data": str(data), "objective": OBJECTIVES, "batch_tokens": 512, "window": 32}
    return make_plan(resolve({}, {"train": train}, plugins := Plugins.discover()), plugins)


def batches_of(plan: PretrainingPlan, rank: int = 0, world_size: int = 1) -> TrainingBatches:
    return TrainingBatches(
        plan.folder, plan.manifest, plan.schedule, plan.objectives, plan.sizes, 1, rank, world_size
    )


@pytest.fixture(scope="module")
def plan(tiny_data: Path) -> PretrainingPlan:
    return plan_of(tiny_data)


def samples_of(batches: list[Batch]) -> list[Sample]:
    """Each sample: its number, what the model sees of it, and what it must predict."""
    return [sample for batch in batches for sample in _samples(batch)]


def _samples(batch: Batch) -> Iterator[Sample]:
    bounds, predicted = batch.offsets.numpy(), batch.predicted.numpy()
    cuts = np.searchsorted(predicted, bounds[1:-1])  # predicted positions rise
    places, targets = np.split(predicted, cuts), np.split(batch.targets.numpy(), cuts)
    sources = _rows(batch.source) if batch.source else [[]] * len(batch.sample_ids)
    for number, begin, row, source, place, target in zip(
        batch.sample_ids.tolist(), bounds, _rows(batch), sources, places, targets, strict=False
    ):
        yield number, *map(tuple, (row, source, (place - begin).tolist(), target.tolist()))


def _rows(batch: Batch) -> list[list[int]]:
    split = np.split(batch.tokens.numpy(), batch.offsets[1:-1].numpy())
    return [row.tolist() for row in split]


def global_batches(
    plan: PretrainingPlan, n_updates: int, world_size: int, workers: int = 0
) -> list[list[Sample]]:
    """All samples of each update, over all ranks, sorted.

    Every rank gives a batch for every update, and none is empty.
    """
    ranks = [
        [
            samples_of(found.batches)
            for found in load_batches(batches_of(plan, r, world_size), 0, n_updates, workers)
        ]
        for r in range(world_size)
    ]
    assert [len(rank) for rank in ranks] == [n_updates] * world_size
    assert all(share for rank in ranks for share in rank)
    return [sorted(chain.from_iterable(shares)) for shares in zip(*ranks, strict=True)]


def test_ranks_share_one_sequence(plan: PretrainingPlan) -> None:
    alone = global_batches(plan, 24, 1)
    assert {plan.schedule.update(i).objective for i in range(24)} == {"mlm", "tlm", "ae"}
    for world_size in (2, 4):
        assert global_batches(plan, 24, world_size) == alone


def test_what_is_compared_is_masked_and_noisy(plan: PretrainingPlan) -> None:
    """Otherwise the comparison of ranks would only compare the text."""
    changed = dict.fromkeys(("mlm", "tlm", "ae"), 0)
    for index, samples in enumerate(global_batches(plan, 12, 1)):
        name = plan.schedule.update(index).objective
        for _, row, source, places, targets in samples:
            shown = source[1:-1] if name == "ae" else [row[place] for place in places]
            changed[name] += list(shown) != list(targets[:-1] if name == "ae" else targets)
    assert min(changed.values()) > 10


@pytest.fixture(scope="module")
def long_sequence(plan: PretrainingPlan) -> list[list[Sample]]:
    return global_batches(plan, 200, 1)


@pytest.mark.faults
@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_and_workers_share_one_sequence_of_200_updates(
    plan: PretrainingPlan, long_sequence: list[list[Sample]], world_size: int, workers: int
) -> None:
    assert global_batches(plan, 200, world_size, workers) == long_sequence


AS_A_RANK = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, os.path.dirname(sys.argv[1]))
from test_one_sequence import batches_of, load_batches, plan_of, samples_of

data, out, n_updates = Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
if __name__ == "__main__":
    updates = load_batches(batches_of(plan_of(data), rank, world_size), 0, n_updates, 1)
    samples = [samples_of(update.batches) for update in updates]
    (out / f"{rank}.json").write_text(json.dumps(samples))
"""


@pytest.mark.faults
def test_processes_share_the_sequence_too(
    plan: PretrainingPlan, tiny_data: Path, tmp_path: Path, as_ranks: Callable[..., list[int]]
) -> None:
    (tmp_path / "rank.py").write_text(AS_A_RANK)
    arguments = [tmp_path / "rank.py", Path(__file__), tiny_data, tmp_path, "40"]
    assert as_ranks([*map(str, arguments)], 2, tmp_path / "log", 240) == [0, 0], (
        tmp_path / "log"
    ).read_text()
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    together = [sorted(a + b) for a, b in zip(*ranks, strict=True)]
    assert together == json.loads(json.dumps(global_batches(plan, 40, 1)))


class Counting:
    """A reader that records what is read."""

    def __init__(self, reader: BlockReader) -> None:
        self.reader = reader
        self.keys: list[str] = []

    def read(self, block: Block) -> tuple[Ragged, ...] | None:
        self.keys.append(block.key)
        return self.reader.read(block)


def test_the_millionth_update_is_found_by_reading_only_its_own_pools(
    plan: PretrainingPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each lane reads the blocks of one pool, as many as for the first update."""
    batches = batches_of(plan)
    batches._reader = counting = Counting(ShardReader(plan.folder, plan.manifest))
    found = samples_of(batches[MILLION])
    update = plan.schedule.update(MILLION)
    places = [
        batches._plans[update.objective, update.step].place(lane, update.occurrence)
        for lane in range(plan.sizes.lanes)
    ]
    assert update.occurrence > 100_000
    assert min(place.epoch for place in places) > 1000
    assert len(counting.keys) == sum(len(place.blocks) for place in places) <= 8 * 9
    assert found == samples_of(batches_of(plan)[MILLION])
    assert found != samples_of(batches_of(plan)[MILLION + 1])
    halves = [batches_of(plan, rank, 2)[MILLION] for rank in range(2)]
    assert sorted(chain.from_iterable(map(samples_of, halves))) == sorted(found)


def test_fewer_blocks_than_lanes_are_reported_before_anything_begins(
    tiny_data: Path, refused: Callable[..., str]
) -> None:
    n_blocks = len(Manifest.load(tiny_data).stream("train", ("en",)).blocks)
    command = ["train", "--objective=mlm:en", "--data", tiny_data, "--dim=16", "--n-heads=2"]
    refused(
        [*command, "--lanes", "128"],
        f"train.en has {n_blocks} blocks of text for 128 lanes (1000 sentences)",
        f"--lanes {n_blocks}",
    )
