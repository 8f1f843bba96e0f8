"""Sums between log lines, and metrics.jsonl."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from xlm_plugins.contracts.batch import LossOutput
from xlm_plugins.runs.metrics_file import MetricsFile, read_metrics
from xlm_plugins.runs.whole_folders import StorageError
from xlm_plugins.training.tallies import Tallies


class OneRank:
    """The part of an engine that tallies use, for one process."""

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        return values


def _output(loss: float, n_targets: int, n_correct: int) -> LossOutput:
    return LossOutput(torch.tensor(loss), torch.tensor(n_targets), torch.tensor(n_correct))


def _filled() -> Tallies:
    tallies = Tallies(torch.device("cpu"))
    tallies.of("mlm", "en").add(_output(6.0, 3, 1))
    tallies.of("mlm", "en").add(_output(2.0, 1, 1))
    tallies.of("mlm", "en").n_updates = 1
    tallies.of("tlm", "en-fr").add(_output(5.0, 5, 0))
    tallies.n_tokens = 40
    return tallies


def test_losses_are_means_over_targets() -> None:
    tallies = _filled()
    records, n_tokens = tallies.drain(OneRank())
    assert n_tokens == 40
    assert records[0] == {
        "objective": "mlm",
        "languages": "en",
        "updates": 1,
        "loss": 2.0,
        "accuracy": 50.0,
    }
    assert records[1]["loss"] == 1.0
    assert tallies.drain(OneRank()) == ([], 0)


def test_an_open_line_survives_a_checkpoint_to_the_last_bit() -> None:
    tree = json.loads(json.dumps(_filled().to_json(OneRank())))
    restored = Tallies(torch.device("cpu"))
    restored.restore(tree, rank=0)
    assert restored.drain(OneRank()) == _filled().drain(OneRank())


def test_only_rank_0_takes_the_sums_of_all() -> None:
    restored = Tallies(torch.device("cpu"))
    restored.restore(_filled().to_json(OneRank()), rank=1)
    records, n_tokens = restored.drain(OneRank())
    assert n_tokens == 0
    assert [record["loss"] for record in records] == [0.0, 0.0]


def test_metrics_after_a_checkpoint_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path, writing=True)
    metrics.write("train", 1, {"loss": 2.0})
    position = metrics.position()
    metrics.write("train", 2, {"loss": 1.0})
    metrics.close()
    resumed = MetricsFile(path, writing=True)
    resumed.cut(position)
    resumed.write("train", 2, {"loss": float("nan")})
    resumed.close()
    lines = list(read_metrics(path))
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 2.0), (2, "nan")]


def test_removed_lines_do_not_count_as_written(tmp_path: Path) -> None:
    """A resumed run may save before it writes a line."""
    metrics = MetricsFile(tmp_path / "metrics.jsonl", writing=True)
    metrics.write("train", 1, {})
    position = metrics.position()
    metrics.write("train", 2, {})
    metrics.cut(position)
    assert metrics.position() == position
    metrics.close()


def test_an_incomplete_line_is_removed(tmp_path: Path) -> None:
    """After a file system lost the end of the file, no line is appended to half a line."""
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step":1}\n{"step":')
    metrics = MetricsFile(path, writing=True)
    metrics.cut(1000)
    metrics.close()
    assert path.read_text() == '{"step":1}\n'


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full")
def test_a_full_disk_is_a_storage_error() -> None:
    metrics = MetricsFile(Path("/dev/full"), writing=True)
    with pytest.raises(StorageError, match="/dev/full cannot be written: No space left") as told:
        metrics.write("train", 1, {})
    assert told.value.exit_status == 75
    assert "--resume" in told.value.remedy
    metrics.close()


def test_an_incomplete_last_line_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind":"train","step":1}\n{"kind":"tra')
    assert [line["step"] for line in read_metrics(path)] == [1]


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.jsonl", writing=False)
    metrics.write("train", 1, {})
    metrics.cut(0)
    metrics.close()
    assert not list(tmp_path.iterdir())
