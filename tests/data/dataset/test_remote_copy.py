"""Data sets at a URL: fetched, verified, kept within bounds, and from servers that fail."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.data_server import Server, serving

from xlm_plugins.contracts.ragged import Ragged
from xlm_plugins.core.errors import DataError, OptionError
from xlm_plugins.data.dataset import download as fetching
from xlm_plugins.data.dataset import retry
from xlm_plugins.data.dataset.manifest import Manifest, StoredFile, Stream, TokenizerRecord
from xlm_plugins.data.dataset.remote_copy import RemoteCopy, local_copy, open_data_set
from xlm_plugins.data.dataset.shards import ShardReader, ShardWriter, find_damage
from xlm_plugins.data.dataset.skip_bad_shards import SkippingReader

RECORD = TokenizerRecord("words", "tests", "1", "abc", 100, {"unk": 3}, [])
N_SHARDS = 6


def make_data_set(folder: Path) -> Manifest:
    """A stream with one block per shard, without a tokenizer."""
    folder.mkdir()
    written = []
    for number in range(N_SHARDS):
        with ShardWriter(folder / f"{number}.tar", number) as writer:
            rows = Ragged.of([[7 + number] * 300, [8, 9]])
            side = Ragged(rows.values.astype(np.uint16), rows.offsets)
            writer.add(f"train-en-{number}", ("en",), (side,))
            written.append(writer.finish())
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "component.json").write_text("{}")
    stream = Stream("train", ("en",), [block for shard in written for block in shard.blocks])
    files = [StoredFile.of(folder, "tokenizer/component.json")]
    manifest = Manifest(RECORD, [stream], [shard.shard for shard in written], files=files)
    (folder / "manifest.json").write_text(manifest.dumps())
    return manifest


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A data set on a server, a cache for this test only, and short pauses between attempts."""
    monkeypatch.setenv("WDS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(retry, "PAUSES", (0.01, 0.02, 0.04))
    make_data_set(tmp_path / "data")
    with serving(tmp_path / "data") as server:
        yield server


def opened(server: Server) -> tuple[Path, Manifest, ShardReader]:
    folder, manifest = open_data_set(server.url)
    return folder, manifest, ShardReader(folder, manifest)


def read_all(manifest: Manifest, reader: ShardReader) -> list[int]:
    return [int(reader.read(block)[0].values[0]) for block in manifest.streams[0].blocks]


def test_a_shard_is_fetched_when_a_block_of_it_is_read_and_then_kept(served: Server) -> None:
    folder, manifest, reader = opened(served)
    assert {path.name for path in folder.iterdir()} == {
        "manifest.json", "origin.json", "tokenizer"
    }  # fmt: skip
    assert read_all(manifest, reader) == [7, 8, 9, 10, 11, 12] == read_all(manifest, reader)
    again, _ = open_data_set(served.url + "/")
    assert again == folder
    assert {n for name, n in served.requests.items() if name.endswith(".tar")} == {1}
    assert served.requests["component.json"] == 1
    assert find_damage(folder, manifest) == []


def test_missing_shards_are_fetched_to_be_verified(served: Server) -> None:
    folder, manifest, _ = opened(served)
    served.actions["3.tar"] = ["garble"]
    (reported,) = find_damage(folder, manifest)
    assert f"{served.url}/3.tar does not have the checksum" in reported


def test_other_content_at_the_same_place_is_another_copy(served: Server, tmp_path: Path) -> None:
    folder, manifest, _ = opened(served)
    other = manifest.dumps().replace("train-en-", "train-xx-")
    (tmp_path / "data" / "manifest.json").write_text(other)
    assert open_data_set(served.url)[0] != folder


def test_a_query_is_kept_for_every_file_and_never_shown(served: Server) -> None:
    place = served.url + "/?signature=secret"
    folder, manifest = open_data_set(place)
    assert ShardReader(folder, manifest).read(manifest.streams[0].blocks[0])
    assert "signature=secret" in json.loads((folder / "origin.json").read_text())["url"]
    served.actions["1.tar"] = ["404"]
    with pytest.raises(DataError) as caught:
        ShardReader(folder, manifest).read(manifest.streams[0].blocks[1])
    assert "secret" not in str(caught.value)


FAULTS = {
    "503": "a server that answers 503",
    "drop": "a connection dropped amid a shard",
    "half": "an answer that ends amid a shard",
    "stall": "a server that stalls",
    "garble": "a byte changed on the way",
}


@pytest.fixture(params=FAULTS)
def action(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a server does wrong; stalls are short."""
    if request.param == "stall":
        monkeypatch.setattr(fetching, "STALL_SECONDS", 0.5)
    return request.param


@pytest.mark.faults
def test_a_failing_server_is_asked_again(
    served: Server, action: str, faults: Any, caplog: pytest.LogCaptureFixture
) -> None:
    folder, manifest, reader = opened(served)
    faults.inject(FAULTS[action])
    served.actions["2.tar"] = [action] * 3
    assert read_all(manifest, reader) == [7, 8, 9, 10, 11, 12]
    assert served.requests["2.tar"] == 4
    assert sum("2.tar" in line for line in caplog.messages) == 3
    assert "trying again in 0.04 s" in caplog.text
    assert not list(folder.glob("*.part"))
    faults.survive(FAULTS[action], lost="nothing")


@pytest.mark.faults
def test_a_server_that_keeps_failing_is_reported_with_the_shard(
    served: Server, action: str, faults: Any
) -> None:
    folder, manifest, reader = opened(served)
    name = f"{FAULTS[action]}, for good"
    faults.inject(name)
    served.actions["2.tar"] = [action] * 9
    with pytest.raises(DataError, match=rf"{served.url}/2\.tar"):
        read_all(manifest, reader)
    assert served.requests["2.tar"] == 4
    assert not list(folder.glob("2.tar*"))
    faults.survive(name, lost="the updates since the last checkpoint")


def test_503_is_asked_again_and_404_is_not(served: Server) -> None:
    _, manifest, reader = opened(served)
    served.actions |= {"1.tar": ["503"], "2.tar": ["404"] * 2}
    with pytest.raises(DataError, match=r"2\.tar cannot be fetched: HTTP 404"):
        read_all(manifest, reader)
    assert served.requests["1.tar"] == 2
    assert served.requests["2.tar"] == 1


def test_a_manifest_that_ends_too_early_is_asked_for_again(served: Server) -> None:
    served.actions["manifest.json"] = ["half", "drop"]
    _, manifest, reader = opened(served)
    assert read_all(manifest, reader) == [7, 8, 9, 10, 11, 12]
    assert served.requests["manifest.json"] == 3


def test_a_cache_that_cannot_be_written_is_reported(served: Server, tmp_path: Path) -> None:
    folder, manifest, reader = opened(served)
    (folder / ".locks").touch()  # where a folder should be
    with pytest.raises(DataError, match=f"{folder} cannot be written") as caught:
        read_all(manifest, reader)
    assert "--data-cache DIR" in caught.value.remedy
    assert f"{folder} cannot be written" in find_damage(folder, manifest)[0]
    with pytest.raises(DataError, match="cannot be written"):
        local_copy(served.url, tmp_path / "data" / "0.tar")


@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_a_damaged_shard_in_the_cache_is_fetched_again(served: Server, damage: str) -> None:
    folder, manifest, reader = opened(served)
    read_all(manifest, reader)
    path, block = folder / "4.tar", manifest.streams[0].blocks[4]
    content = bytearray(path.read_bytes())
    content[block.members["en.tokens.npy"][0]] ^= 255  # its header
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-9] if damage == "cut" else content)
    assert read_all(manifest, reader) == [7, 8, 9, 10, 11, 12]
    assert served.requests["4.tar"] == 2


def test_the_cache_keeps_the_shards_read_last_within_its_size(served: Server) -> None:
    size = Manifest.loads(fetching.fetch_text(f"{served.url}/manifest.json"), "").shards[0].n_bytes
    folder = local_copy(served.url, gigabytes=3.5 * size / 1e9)
    manifest = Manifest.load(folder)
    reader = ShardReader(folder, manifest)
    blocks = manifest.streams[0].blocks
    for number in (0, 1, 2, 0, 3):
        reader.read(blocks[number])
        time.sleep(0.02)  # file times are coarse
        assert sum(path.stat().st_size for path in folder.glob("*.tar")) <= 3.5 * size
    assert sorted(path.name for path in folder.glob("*.tar")) == ["0.tar", "2.tar", "3.tar"]
    assert reader.read(blocks[1])


def test_a_cache_makes_room_among_all_its_data_sets_and_nothing_else(
    served: Server, tmp_path: Path
) -> None:
    first, manifest, reader = opened(served)
    read_all(manifest, reader)
    mine = tmp_path / "cache" / "mine" / "other.tar"
    mine.parent.mkdir()
    mine.write_bytes(bytes(10**6))
    text = manifest.dumps().replace("train-en-", "train-xx-")
    (tmp_path / "data" / "manifest.json").write_text(text)
    second = local_copy(served.url, gigabytes=1.5 * manifest.shards[0].n_bytes / 1e9)
    RemoteCopy.of(second).ensure(manifest.shards[0])  # type: ignore[union-attr]
    assert not list(first.glob("*.tar"))
    assert mine.is_file()
    assert (first / "manifest.json").is_file()


def test_a_cache_size_that_is_no_number(served: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WDS_CACHE_SIZE", "50GB")
    with pytest.raises(OptionError, match="WDS_CACHE_SIZE is '50GB'"):
        local_copy(served.url)


def test_a_cache_too_small_for_the_data_is_reported_at_once(
    served: Server, caplog: pytest.LogCaptureFixture
) -> None:
    local_copy(served.url, gigabytes=1e-6)
    assert "raise --data-cache-gb" in caplog.text


def test_a_missing_shard_can_be_left_out_but_not_a_missing_server(
    served: Server,
) -> None:
    folder, manifest, _ = opened(served)
    blocks = manifest.streams[0].blocks
    skipping = SkippingReader(ShardReader(folder, manifest), manifest)
    served.actions |= {"1.tar": ["404"], "2.tar": ["503"] * 4, "4.tar": ["503"] * 4}
    assert [skipping.read(block) is None for block in blocks[:4]] == [False, True, True, False]
    assert skipping.read(blocks[1]) is None
    assert served.requests["1.tar"] == 1  # once it is marked as bad, it is not requested again
    assert skipping.take_left_out() == {"train-en-1", "train-en-2"}
    served.actions["manifest.json"] = ["503"]
    with pytest.raises(DataError, match=r"4\.tar.*503.*the rest of the data set is gone too"):
        skipping.read(blocks[4])


def test_a_manifest_lists_every_file_that_a_copy_needs(tiny_data: Path) -> None:
    manifest = Manifest.load(tiny_data)
    named = {file.path for file in [*manifest.files, *manifest.shards]}
    there = {str(p.relative_to(tiny_data)) for p in tiny_data.rglob("*") if p.is_file()}
    assert named == there - {"manifest.json"}
    assert all(file == StoredFile.of(tiny_data, file.path) for file in manifest.files)
    assert replace(manifest, files=[]).fingerprint == manifest.fingerprint


READ_EVERYTHING = """
import sys
from xlm_plugins.data.dataset.remote_copy import open_data_set
from xlm_plugins.data.dataset.shards import ShardReader
folder, manifest = open_data_set(sys.argv[1])
reader = ShardReader(folder, manifest)
print([int(reader.read(block)[0].values[0]) for block in manifest.streams[0].blocks])
"""


@pytest.mark.faults
def test_processes_share_a_copy(served: Server, faults: Any) -> None:
    faults.inject("four processes that fetch the same shards at once")
    command = [sys.executable, "-c", READ_EVERYTHING, served.url]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [process.communicate(timeout=240)[0] for process in running] == [
        "[7, 8, 9, 10, 11, 12]\n"
    ] * 4
    folder, manifest = open_data_set(served.url)
    assert find_damage(folder, manifest) == []
    assert not list(folder.rglob("*.part"))
    faults.survive("four processes that fetch the same shards at once")


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (
            lambda folder: (folder / "manifest.json").unlink(),
            "manifest.json cannot be fetched: HTTP 404",
        ),
        (lambda folder: (folder / "manifest.json").write_text("<html>"), "is not a manifest"),
        (lambda folder: (folder / "manifest.json").write_bytes(b"\xff\xfe"), "is not text"),
        (lambda folder: (folder / "tokenizer" / "component.json").unlink(), "component.json"),
    ],
)
def test_a_url_without_a_data_set(
    served: Server, tmp_path: Path, spoil: Callable[[Path], object], problem: str
) -> None:
    spoil(tmp_path / "data")
    with pytest.raises(DataError, match=problem):
        open_data_set(served.url)


def test_a_manifest_that_does_not_list_its_files(served: Server, tmp_path: Path) -> None:
    path = tmp_path / "data" / "manifest.json"
    tree = json.loads(path.read_text())
    del tree["files"]
    path.write_text(json.dumps(tree))
    with pytest.raises(DataError, match="older version"):
        open_data_set(served.url)


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "..\\x", ""])
def test_a_manifest_that_leads_out_of_its_folder(served: Server, tmp_path: Path, path: str) -> None:
    manifest = tmp_path / "data" / "manifest.json"
    tree = json.loads(manifest.read_text())
    tree["files"][0]["path"] = path
    manifest.write_text(json.dumps(tree))
    with pytest.raises(DataError, match="leads out of the data set"):
        open_data_set(served.url)
    assert not (tmp_path / "cache").exists()


def test_a_server_that_does_not_answer() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(DataError, match=rf"{url}/manifest\.json cannot be fetched: .*refused"):
        fetching.fetch_text(f"{url}/manifest.json")
