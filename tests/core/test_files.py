"""Files and folders are written completely or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from xlm_plugins.core.errors import BundleError
from xlm_plugins.core.files import (
    checksum,
    read_json,
    whole_file,
    whole_folder,
    write_json,
    write_text,
)


def test_a_failure_leaves_the_file_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"é": 1})
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half\udcff")
    assert json.loads(path.read_text(encoding="utf-8")) == {"é": 1}
    write_json(path, [2])
    assert json.loads(path.read_text(encoding="utf-8")) == [2]
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_appears_when_it_is_complete(tmp_path: Path, shared: bool, exists: bool) -> None:
    out = tmp_path / "parent" / "out"
    if exists:
        out.mkdir(parents=True)
    with whole_folder(out, shared=shared) as partial:
        (partial / "a").write_text("a")
        assert partial.parent == out.parent
        assert partial.name.startswith(".")
        assert partial.stat().st_mode == tmp_path.joinpath("parent").stat().st_mode
        assert not (out / "a").exists()
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert (out / "a").read_text() == "a"


@pytest.mark.parametrize("shared", [False, True])
def test_a_failure_leaves_no_folder(tmp_path: Path, shared: bool) -> None:
    def fail() -> None:
        with whole_folder(tmp_path / "a", shared=shared) as partial:
            (partial / "torn").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_process_are_overwritten(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys\n"
        "from xlm_plugins.core.files import whole_file, whole_folder\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "with whole_folder(folder / 'a') as a, whole_file(folder / 'b') as b:\n"
        "    (a / 'torn').touch()\n"
        "    b.write_text('a longer text')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert sorted(os.listdir(tmp_path)) == [".a.partial", ".b.partial"]
    with whole_folder(tmp_path / "a") as partial:
        (partial / "whole").touch()
    write_text(tmp_path / "b", "text")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
    assert os.listdir(tmp_path / "a") == ["whole"]
    assert (tmp_path / "b").read_text() == "text"


def test_processes_that_write_the_same_file_do_not_interfere(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys\n"
        "from xlm_plugins.core.files import whole_file\n"
        "with whole_file(pathlib.Path(sys.argv[1]), shared=True) as partial:\n"
        "    partial.write_text('theirs')\n"
    )
    path = tmp_path / "a"
    with whole_file(path, shared=True) as partial:
        partial.write_text("ours")
        subprocess.run([sys.executable, "-c", code, str(path)], timeout=60, check=True)
        assert path.read_text() == "theirs"
        assert partial.read_text() == "ours"
    assert path.read_text() == "ours"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("text", [None, "{", "[1]", "\xff"])
def test_damaged_json_is_reported_by_name(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "a.json").write_bytes(text.encode("latin1"))
    with pytest.raises(BundleError, match=r"a\.json (cannot be read|holds no JSON object)"):
        read_json(tmp_path / "a.json")
    write_json(tmp_path / "a.json", {"a": [1]})
    assert read_json(tmp_path / "a.json") == {"a": [1]}


def test_a_checksum_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"text")
    assert checksum(tmp_path / "a") == hashlib.sha256(b"text").hexdigest()
