"""Text files are read with any compression, and errors name file and line."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from xlm_plugins.core import text_files
from xlm_plugins.core.errors import DataError
from xlm_plugins.core.text_files import COMPRESSED, open_decompressed, read_lines

Compress = Callable[[bytes], bytes]
COMPRESS: dict[str, Compress] = {
    ".bz2": bz2.compress,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": text_files.zstd.compress,
}
compressed = pytest.mark.parametrize(("ending", "compress"), COMPRESS.items(), ids=COMPRESS)


def test_every_compression_is_tested() -> None:
    assert tuple(COMPRESS) == COMPRESSED


@pytest.mark.parametrize("ending", ["", *COMPRESS])
def test_plain_and_compressed_text_is_read(tmp_path: Path, ending: str) -> None:
    """In two frames, as parallel compressors and `cat` make them."""
    path = tmp_path / f"a.txt{ending}"
    text = "\ufeffone\r\ntwo\u2028half\n\n  \nthrée".encode()
    compress = COMPRESS.get(ending, bytes)
    path.write_bytes(compress(text[:5]) + compress(text[5:]))
    assert list(read_lines(path)) == ["one", "two\u2028half", "", "  ", "thrée"]
    with open_decompressed(path) as file:
        assert file.read() == text


@compressed
def test_damage_is_reported_with_file_and_line(
    tmp_path: Path, ending: str, compress: Compress
) -> None:
    path = tmp_path / f"a.txt{ending}"
    whole = compress(b"one\ntwo\n" * 100)
    middle = len(whole) // 2
    for damaged in (
        whole[:-5],
        whole[:3],
        whole + compress(b"three\n")[:-5],
        whole[:middle] + bytes(byte ^ 0xFF for byte in whole[middle : middle + 9]) + whole[-4:],
        b"no such thing",
    ):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"a\.txt.* cannot be read beyond line \d+: ."):
            list(read_lines(path))


@compressed
def test_lines_before_a_cut_are_read(tmp_path: Path, ending: str, compress: Compress) -> None:
    path = tmp_path / f"a.txt{ending}"
    path.write_bytes(compress(b"line\n" * 100_000) + compress(b"more\n")[:-5])
    read = read_lines(path)
    assert {next(read) for _ in range(50_000)} == {"line"}
    with pytest.raises(DataError, match=r"beyond line \d{5,6}: "):
        list(read)


def test_a_frame_that_needs_too_much_memory_is_refused(tmp_path: Path) -> None:
    """Files of `zstd --ultra --long=31` need 2 GB to be read; by default zstd refuses them, too."""
    compressor = text_files.zstd.ZstdCompressor(
        options={text_files.zstd.CompressionParameter.window_log: 28}
    )
    path = tmp_path / "a.txt.zst"
    path.write_bytes(compressor.compress(b"text\n") + compressor.flush())
    with pytest.raises(DataError, match="too much memory"):
        list(read_lines(path))


def test_bytes_that_are_not_utf8_are_reported_with_line_and_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("où\n".encode() + b"caf\xe9 noir\n")
    with pytest.raises(DataError, match=r"a\.txt, line 2: byte 4 .* 0xe9") as error:
        list(read_lines(path))
    assert "--errors replace" in error.value.remedy
    assert list(read_lines(path, "replace")) == ["où", "caf\ufffd noir"]


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "LONGEST_LINE", 100)
    path = tmp_path / "a.txt"
    path.write_text("a\n" + "b" * 100)
    with pytest.raises(DataError, match="line 2: longer than 100 bytes"):
        list(read_lines(path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no file .*a\.txt"):
        list(read_lines(tmp_path / "a.txt"))
    with pytest.raises(DataError, match=r"cannot be read beyond line 0: .*directory"):
        list(read_lines(tmp_path))
