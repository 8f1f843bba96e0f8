"""Inspecting a data set: duplicates, leakage and damage, against counts made by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from xlm_plugins.cli.data import data
from xlm_plugins.contracts.ragged import Ragged
from xlm_plugins.core.errors import DataError
from xlm_plugins.data.dataset import inspect as inspection
from xlm_plugins.data.dataset.inspect import BIN_STARTS, inspect, joined_hashes, row_hashes
from xlm_plugins.data.dataset.manifest import Manifest
from xlm_plugins.data.prepare.prepare import prepare
from xlm_plugins.data.prepare.sources import Sources
from xlm_plugins.testing import WORDS
from xlm_plugins.testing.words import WordTokenizer

_TEXT = {
    "train.en": ["a b", "b a", "a b", "c", "d e f"],
    "train.en-fr.en": ["x y", "a a", "x y"],
    "train.en-fr.fr": ["u", "v", "w"],
    "valid.en": ["a b", "x y", "new a", "c"],
    "valid.en-fr.en": ["x y", "x y", "c"],
    "valid.en-fr.fr": ["u", "v", "v"],
}


@pytest.fixture
def folder(tmp_path):
    source = tmp_path / "text"
    source.mkdir()
    for name, lines in _TEXT.items():
        (source / f"{name}.txt").write_text("\n".join(lines) + "\n")
    tokenizer = WordTokenizer(list("abcdefxyuvw"))
    prepare(Sources.open(source), tmp_path / "out", WORDS, tokenizer)
    return tmp_path / "out"


def _stream(report, name):
    (found,) = (stream for stream in report.streams if stream.name == name)
    return found


def test_equal_rows_have_equal_hashes_and_others_do_not():
    rows = Ragged.of([[1, 2, 3], [3, 2, 1], [1, 2], [1, 2, 3], [0], [0, 0], [6]])
    hashes = row_hashes(rows)
    assert hashes[0] == hashes[3]
    assert len(np.unique(hashes)) == 6
    assert row_hashes(Ragged.of([[9], [1, 2, 3]]))[1] == hashes[0]
    narrow = Ragged(rows.values.astype(np.uint16), rows.offsets.astype(np.int32))
    np.testing.assert_array_equal(row_hashes(narrow), hashes)
    one, other = row_hashes(Ragged.of([[1]])), row_hashes(Ragged.of([[2]]))
    assert joined_hashes([one, other]) != joined_hashes([other, one])


def test_hashes_of_many_rows_do_not_collide():
    rows = Ragged(np.stack(np.divmod(np.arange(100_000), 300), 1).ravel(), np.arange(100_001) * 2)
    assert len(np.unique(row_hashes(rows))) == 100_000


def test_sizes_unknown_words_and_lengths(folder):
    report = inspect(folder, Manifest.load(folder))
    train = _stream(report, "train.en")
    assert (train.n_sentences, train.n_tokens) == (5, 10)
    assert train.histogram == [5] + [0] * (len(BIN_STARTS) - 1)
    assert _stream(report, "valid.en").unknown_rate == pytest.approx(1 / 7)
    assert train.n_bytes > 2 * 10


def test_duplicates_are_counted_once_less_than_they_occur(folder):
    report = inspect(folder, Manifest.load(folder))
    assert _stream(report, "train.en").duplicate_rate == pytest.approx(1 / 5)
    assert _stream(report, "train.en-fr").duplicate_rate == 0.0  # the same English, other French
    assert _stream(report, "valid.en").duplicate_rate is None


def test_leakage_shows_where_held_out_text_was_seen(folder):
    report = inspect(folder, Manifest.load(folder))
    found = {
        (leak.name, leak.language): (leak.same, leak.monolingual, leak.parallel)
        for leak in report.leakage
    }
    assert found == {
        ("valid.en", "en"): (2 / 4, 2 / 4, 1 / 4),
        ("valid.en-fr", "en"): (1 / 3, 1 / 3, 2 / 3),
        ("valid.en-fr", "fr"): (1 / 3, None, 1.0),
    }


def test_a_large_stream_is_sampled_by_hash(folder, monkeypatch):
    monkeypatch.setattr(inspection, "MOST_HASHES", 3)
    report = inspect(folder, Manifest.load(folder))
    assert 0 <= _stream(report, "train.en").duplicate_rate < 1


def test_the_command_prints_tables_and_json(folder):
    shown = CliRunner().invoke(data, [str(folder)])
    assert shown.exit_code == 0, shown.output
    assert "train.en-fr" in shown.output
    assert "20.00%" in shown.output
    printed = CliRunner().invoke(data, [str(folder), "--json"])
    tree = json.loads(printed.stdout)
    assert tree["languages"] == ["en", "fr"]
    assert len(tree["streams"]) == 4


def test_verifying_names_the_damaged_shard(folder):
    assert "all checksums match" in CliRunner().invoke(data, [str(folder), "--verify"]).output
    path = folder / "train.en-00000.tar"
    content = bytearray(path.read_bytes())
    content[700] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"train\.en-00000\.tar") as error:
        CliRunner().invoke(data, [str(folder), "--verify"], catch_exceptions=False)
    assert error.value.exit_status == 2


def test_a_folder_without_a_data_set_is_refused(tmp_path):
    with pytest.raises(DataError, match="not a data set"):
        CliRunner().invoke(data, [str(tmp_path)], catch_exceptions=False)
