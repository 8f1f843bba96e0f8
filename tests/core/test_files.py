"""Files that are whole or as they were."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from xlm_plugins.core.files import checksum, write_json, write_text


def test_a_failure_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"é": 1})
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half\udcff")
    assert json.loads(path.read_text(encoding="utf-8")) == {"é": 1}
    write_json(path, [2])
    assert json.loads(path.read_text(encoding="utf-8")) == [2]
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_a_checksum_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"text")
    assert checksum(tmp_path / "a") == hashlib.sha256(b"text").hexdigest()
