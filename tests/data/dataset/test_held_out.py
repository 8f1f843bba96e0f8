"""Held-out text is returned as it was written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from xlm_plugins.core.errors import DataError
from xlm_plugins.data.dataset import retry
from xlm_plugins.data.dataset.held_out import held_out_text
from xlm_plugins.data.dataset.manifest import Manifest


def test_a_pair_in_either_order(tiny_source: Path, tiny_data: Path) -> None:
    manifest = Manifest.load(tiny_data)
    sides = [
        (tiny_source / f"test.en-fr.{code}.txt").read_text(encoding="utf-8").splitlines()
        for code in ("en", "fr")
    ]
    english, french = held_out_text(tiny_data, manifest, "test", ("en", "fr"), 1000)
    assert [english, french] == sides
    assert held_out_text(tiny_data, manifest, "test", ("fr", "en"), 1000) == (french, english)


def test_fewer_are_spread_evenly(tiny_source: Path, tiny_data: Path) -> None:
    manifest = Manifest.load(tiny_data)
    (few,) = held_out_text(tiny_data, manifest, "valid", ("fr",), 4)
    lines = (tiny_source / "valid.fr.txt").read_text(encoding="utf-8").splitlines()
    assert few == [lines[0], lines[5], lines[10], lines[15]]


def test_training_text_and_missing_streams_have_none(tiny_data: Path) -> None:
    manifest = Manifest.load(tiny_data)
    assert held_out_text(tiny_data, manifest, "train", ("en",), 5) == ()
    assert held_out_text(tiny_data, manifest, "valid", ("de",), 5) == ()
    assert held_out_text(tiny_data, manifest, "nowhere", ("en",), 5) == ()


def test_a_wrong_number_of_lines_is_reported(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise sentences would be compared with translations of others."""
    monkeypatch.setattr(retry, "PAUSES", ())
    data = Path(shutil.copytree(tiny_data, tmp_path / "data"))
    manifest = Manifest.load(data)
    block = manifest.stream("valid", ("fr",)).blocks[0]
    path, (offset, size) = data / manifest.shards[block.shard].path, block.members["fr.txt"]
    content = bytearray(path.read_bytes())
    content[offset : offset + size] = content[offset : offset + size].replace(b" ", b"\n", 1)
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{path} is damaged: {block.key} does not have"):
        held_out_text(data, manifest, "valid", ("fr",), 4)
