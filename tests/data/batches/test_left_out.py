"""What training leaves out for its length is counted, and said before training begins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from xlm_plugins.cli.main import main
from xlm_plugins.data.batches.left_out import LeftOut
from xlm_plugins.data.dataset.manifest import Block, Manifest, Stream
from xlm_plugins.data.dataset.shards import ShardReader
from xlm_plugins.runs.metrics_file import read_metrics


def stream_of(*lengths: list[tuple[int, int, int]]) -> Stream:
    """A stream of blocks with these tables: (length, sentences, tokens)."""
    blocks = [Block(0, str(n), {}, 0, np.array(table, np.int32)) for n, table in enumerate(lengths)]
    return Stream("train", ("en",), blocks)


def test_counts_and_the_limit_that_would_do() -> None:
    stream = stream_of([(5, 10, 50), (30, 1, 30)], [(10, 2, 20), (200, 1, 200)])
    found = LeftOut.of(stream, "mlm", 29)
    assert (found.sentences, found.tokens) == (14, 300)
    assert (found.sentences_left_out, found.tokens_left_out) == (2, 230)
    assert found.sufficient_max_length == 200
    assert found.line().startswith("warning: train.en: 2 of 14 sentences (76.7% of the tokens)")
    assert "--max-length 200 would keep 99 %" in found.line()


def test_little_is_said_without_a_warning() -> None:
    found = LeftOut.of(stream_of([(5, 100, 500), (20, 1, 20)]), "mlm", 10)
    assert not found.line().startswith("warning")
    assert found.sufficient_max_length == 20
    assert LeftOut.of(stream_of([(5, 200, 1000), (6, 1, 6)]), "mlm", 5).sufficient_max_length == 5


def test_the_count_is_that_of_the_text(tiny_data: Path) -> None:
    manifest = Manifest.load(tiny_data)
    (pairs,) = [s for s in manifest.streams if s.name == "train.en-fr"]
    found = LeftOut.of(pairs, "tlm", 40)
    sides = [ShardReader(tiny_data, manifest).read(block) for block in pairs.blocks]
    lengths = np.concatenate([np.stack([side.lengths for side in block]) for block in sides], 1)
    too_long = lengths.max(0) > 40
    assert too_long.any()
    assert found.sentences_left_out == too_long.sum()
    assert found.tokens_left_out == lengths[:, too_long].sum()
    enough = replace(found, max_length=found.sufficient_max_length)
    kept = lengths[:, lengths.max(0) <= enough.max_length].sum()
    assert kept >= 0.99 * lengths.sum()


def test_a_run_says_and_records_what_it_leaves_out(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = ["--dim=16", "--n-layers=1", "--n-heads=2", "--threads=1", "--evaluate-every=0"]
    places = [f"--data={tiny_data}", f"--out={tmp_path / 'run'}"]
    command = ["train", "--objective=tlm", "--steps=2", "--max-length=40", *shape, *places]
    assert main(command) == 0
    assert "warning: train.en-fr: " in capsys.readouterr().err
    first = next(iter(read_metrics(tmp_path / "run" / "metrics.jsonl")))
    assert (first["kind"], first["stream"], first["max_length"]) == ("left_out", "train.en-fr", 40)
    assert first["sentences_left_out"] > 0
