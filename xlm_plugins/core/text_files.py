"""Reading text files, plain or compressed: ``.bz2``, ``.gz``, ``.xz`` and ``.zst``.

Lines end at ``\\n`` and nowhere else, so that the sides of a parallel text cannot drift apart at
a stray U+2028.  Every error names the file and the line.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

from xlm_plugins.core.errors import DataError
from xlm_plugins.core.messages import LOG

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_OPENERS: Mapping[str, Callable[..., Any]] = {
    ".bz2": bz2.open, ".gz": gzip.open, ".xz": lzma.open, ".zst": zstd.open,
}  # fmt: skip
COMPRESSED = tuple(_OPENERS)
"""Endings of the names of compressed files."""

UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError, zstd.ZstdError)
"""What opening or reading a file raises that is missing, damaged or incomplete."""

LONGEST_LINE = 16 * 2**20
_BUFFER_BYTES = 2**17
_BYTE_ORDER_MARK = "\ufeff"


def open_decompressed(path: Path) -> BinaryIO:
    """Open a file to read its content, decompressed if its name says that it is compressed.

    A file may consist of several compressed streams or frames, one after the other.  One that is
    cut raises an error when it is read to the cut, as one of `UNREADABLE`.
    """
    LOG.debug("reading %s", path)
    if opener := _OPENERS.get(path.suffix):
        # Their own readline is a Python function; this one is C and takes half of the time.
        return BufferedReader(opener(path, "rb"), _BUFFER_BYTES)
    return path.open("rb", _BUFFER_BYTES)


def read_lines(path: Path, errors: str = "strict") -> Iterator[str]:
    """Yield the lines of a file without their ends, in bounded memory.

    :param errors: ``strict`` refuses bytes that are not UTF-8, ``replace`` turns them into U+FFFD.
    :raises DataError: the file is missing, damaged or not UTF-8, or a line has no end.
    """
    name = str(path)
    for number, line in enumerate(_raw_lines(path), 1):
        yield decode_line(line, number, name, errors)


def decode_line(line: bytes, number: int, name: str, errors: str) -> str:
    """Decode a line of UTF-8, without its end and, in line 1, without a byte order mark.

    :param number: the line's number, from 1.
    :param name: what the error calls the file.
    :param errors: as `read_lines`.
    :raises DataError: the line is not UTF-8.
    """
    try:
        text = line.rstrip(b"\r\n").decode("utf-8", errors)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}, line {number}: byte {error.start + 1} of the line is "
            f"0x{line[error.start]:02x}, which is not UTF-8 there",
            expected="text in UTF-8",
            remedy="convert it (iconv -f latin1 -t utf-8), or read such bytes as U+FFFD, with "
            "--errors replace where the command has it",
        ) from error
    return text.removeprefix(_BYTE_ORDER_MARK) if number == 1 else text


def _raw_lines(path: Path) -> Iterator[bytes]:
    number = 0
    try:
        with open_decompressed(path) as file:
            for number, line in enumerate(iter(partial(file.readline, LONGEST_LINE), b""), 1):
                if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
                    raise DataError(
                        f"{path}, line {number}: longer than {LONGEST_LINE:,} bytes",
                        expected="text with one sentence per line",
                    )
                yield line
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}") from error
    except UNREADABLE as error:
        raise DataError(
            f"{path} cannot be read beyond line {number}: {error}",
            remedy="the file is damaged or incomplete: download or compress it again",
        ) from error
