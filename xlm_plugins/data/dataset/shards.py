"""Shards: webdataset tar files of packed blocks, written once and read in place.

One webdataset sample holds one block: for each language ``LANG.tokens.npy``, all token ids end
to end, and ``LANG.offsets.npy``, where sentences begin; for held-out text also ``LANG.txt``, the
original sentences, one per line.  The tar is not compressed, so that a block can be read at the
offsets that the manifest records.
"""

from __future__ import annotations

import functools
import io
import os
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt
from webdataset.writer import TarWriter

from xlm_plugins.contracts.ragged import IntArray, Ragged
from xlm_plugins.core.errors import DataError
from xlm_plugins.core.files import checksum
from xlm_plugins.data.dataset.download import fetch_text, join_url
from xlm_plugins.data.dataset.manifest import (
    MANIFEST_NAME,
    TRAIN,
    Block,
    Manifest,
    StoredFile,
    length_table,
)
from xlm_plugins.data.dataset.remote_copy import RemoteCopy
from xlm_plugins.data.dataset.retry import with_retries

_HEADER_BYTES = 256
Result = TypeVar("Result")


def token_type(vocabulary_size: int) -> npt.DTypeLike:
    """The narrowest integer type that holds every id."""
    return np.uint16 if vocabulary_size < 2**16 else np.uint32


@dataclass(frozen=True)
class WrittenShard:
    """A finished shard and the blocks in it."""

    shard: StoredFile
    blocks: list[Block]


class ShardWriter:
    """Writes the blocks of one shard and records where everything lies; a context manager.

    :param path: the tar file to write.
    :param index: the shard's index in `Manifest.shards`.
    """

    def __init__(self, path: Path, index: int) -> None:
        self._path = path
        self._index = index
        self._file = path.open("wb")
        # A fixed time stamp, so that the same text always gives the same bytes.
        self._tar = TarWriter(self._file, mtime=0)
        self._blocks: list[Block] = []
        self.n_bytes = 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._tar.close()
        self._file.close()

    @property
    def n_blocks(self) -> int:
        return len(self._blocks)

    def add(
        self,
        key: str,
        languages: tuple[str, ...],
        sides: tuple[Ragged, ...],
        raw: Sequence[Sequence[str]] | None = None,
    ) -> None:
        """Write one block: a `Ragged` for each language, all with the same number of rows.

        :param raw: the sentences of each language as text, or None to leave them out.
        """
        sample: dict[str, Any] = {"__key__": key}
        for language, side in zip(languages, sides, strict=True):
            sample[f"{language}.tokens.npy"] = side.values
            sample[f"{language}.offsets.npy"] = side.offsets.astype(np.int32)
        if raw is not None:
            for language, texts in zip(languages, raw, strict=True):
                sample[f"{language}.txt"] = "\n".join(texts)
        self.n_bytes += self._tar.write(sample)
        self._blocks.append(Block(self._index, key, {}, sides[0].n_rows, length_table(sides)))

    def finish(self) -> WrittenShard:
        """Complete the file and flush it to disk."""
        self._tar.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        members: dict[str, dict[str, tuple[int, int]]] = {b.key: {} for b in self._blocks}
        with tarfile.open(self._path) as tar:
            for item in tar:
                key, _, member = item.name.partition(".")
                members[key][member] = (item.offset_data, item.size)
        blocks = [
            Block(b.shard, b.key, members[b.key], b.n_sentences, b.lengths) for b in self._blocks
        ]
        shard = StoredFile(self._path.name, self._path.stat().st_size, checksum(self._path))
        return WrittenShard(shard, blocks)


class ShardReader:
    """Reads blocks, one at a time; in a copy of a remote data set, shards are fetched as needed.

    Blocks are read, not memory-mapped: mapped pages would count as the process's memory, which
    would grow with the corpus, and a shard truncated meanwhile would kill the process.

    :param folder: the data set.
    :param retry: retry failed reads for a while; in a copy this is always done.
    :param log_prefix: starts each log line, such as ``rank 1: ``.
    """

    def __init__(
        self, folder: Path, manifest: Manifest, *, retry: bool = False, log_prefix: str = ""
    ) -> None:
        self._folder = folder
        self._shards = manifest.shards
        self._vocabulary_size = manifest.tokenizer.size
        self._copy = RemoteCopy.of(folder)
        self._retry = retry or self._copy is not None
        self._log_prefix = log_prefix

    def read(self, block: Block) -> tuple[Ragged, ...]:
        """The block's rows: a read-only `Ragged` for each language, in sorted order.

        :raises DataError: the shard is missing, truncated, damaged, or cannot be fetched.
        """
        languages = sorted({member.partition(".")[0] for member in block.members})

        def rows(shard: BinaryIO) -> tuple[Ragged, ...]:
            sides = tuple(
                Ragged(
                    self._array(shard, block, f"{language}.tokens.npy"),
                    self._array(shard, block, f"{language}.offsets.npy"),
                )
                for language in languages
            )
            self._check(block, sides)
            return sides

        return self._read(block, rows)

    def read_text(self, block: Block) -> tuple[list[str], ...]:
        """The sentences of a held-out block as text: a list for each language, in sorted order.

        :raises DataError: as `read`.
        """

        def texts(shard: BinaryIO) -> tuple[list[str], ...]:
            found = []
            for member, (offset, size) in sorted(block.members.items()):
                if member.endswith(".txt"):
                    shard.seek(offset)
                    found.append(shard.read(size).decode("utf-8", "replace").split("\n"))
            if any(len(lines) != block.n_sentences for lines in found):
                raise self._damaged(block, f"{block.key} does not have {block.n_sentences} lines")
            return tuple(found)

        return self._read(block, texts)

    def check_reachable(self) -> None:
        """Distinguish an unreadable shard from a data set that is gone.

        :raises DataError: not even the manifest can be read.
        """
        if self._copy is not None:
            fetch_text(join_url(self._copy.url, MANIFEST_NAME))
        elif not (self._folder / MANIFEST_NAME).is_file():
            raise DataError(f"the data set {self._folder} is gone")

    def _read(self, block: Block, read: Callable[[BinaryIO], Result]) -> Result:
        """Open a block's shard and read from it, with retries if they are on."""
        shard = self._shards[block.shard]
        forget = functools.partial(self._copy.discard, shard) if self._copy else lambda: None
        read_once = functools.partial(self._read_once, shard, read)
        return with_retries(read_once, self._log_prefix, forget) if self._retry else read_once()

    def _read_once(self, shard: StoredFile, read: Callable[[BinaryIO], Result]) -> Result:
        path = self._folder / shard.path
        try:
            if self._copy is not None:
                self._copy.ensure(shard)
            check_size(self._folder, shard)
            with path.open("rb") as file:
                return read(file)
        except OSError as error:
            raise DataError(f"the shard {path} cannot be read: {error.strerror}") from error

    def _array(self, shard: BinaryIO, block: Block, member: str) -> IntArray:
        offset, size = block.members[member]
        shard.seek(offset)
        content = shard.read(size)
        header = io.BytesIO(content[:_HEADER_BYTES])
        try:
            np.lib.format.read_magic(header)
            shape, _, dtype = np.lib.format.read_array_header_1_0(header)
            return np.frombuffer(content, dtype, shape[0], header.tell())
        except Exception as error:  # numpy's error depends on the damage
            raise self._damaged(block, f"no array where {block.key}.{member} should be") from error

    def _check(self, block: Block, sides: tuple[Ragged, ...]) -> None:
        """Compare rows with the manifest, and ids with the vocabulary."""
        if any(
            side.n_rows != block.n_sentences
            or side.offsets[[0, -1]].tolist() != [0, len(side.values)]
            for side in sides
        ):
            raise self._damaged(block, f"the sentences of {block.key} do not fill it")
        if not np.array_equal(length_table(sides), block.lengths):
            raise self._damaged(
                block,
                f"{block.key} holds {sides[0].n_rows} sentences and "
                f"{sum(len(side.values) for side in sides)} tokens, but the manifest records "
                f"{block.n_sentences} and {block.n_tokens}, or of other lengths",
            )
        if any(side.values.max(initial=0) >= self._vocabulary_size for side in sides):
            raise self._damaged(block, f"{block.key} holds ids outside the vocabulary")

    def _damaged(self, block: Block, how: str) -> DataError:
        return DataError(
            f"{self._folder / self._shards[block.shard].path} is damaged: {how}",
            remedy=f"find all damaged shards: xlm data {self._folder} --verify",
        )


def check_size(folder: Path, shard: StoredFile) -> None:
    """Check that a shard has the size that it was written with.

    :raises DataError: it is missing, truncated or too long.
    """
    path = folder / shard.path
    remedy = "fetch the file again, or prepare the text again: xlm prepare SOURCE OUT"
    if not path.is_file():
        raise DataError(f"the shard {path} is missing", remedy=remedy)
    n_bytes = path.stat().st_size
    if n_bytes != shard.n_bytes:
        state = "truncated" if n_bytes < shard.n_bytes else "too long"
        raise DataError(
            f"the shard {path} is {state}: {n_bytes:,} bytes",
            expected=f"{shard.n_bytes:,} bytes, as the manifest records",
            remedy=remedy,
        )


def check_shards(folder: Path, manifest: Manifest, *, include_training: bool = True) -> None:
    """Check the size of every shard; those of a copy may yet be fetched, and are not checked.

    :param include_training: check the shards of training text as well.
    :raises DataError: the first shard that is missing, truncated or too long.
    """
    if RemoteCopy.of(folder) is not None:
        return
    held_out = {b.shard for s in manifest.streams if s.split != TRAIN for b in s.blocks}
    for number, shard in enumerate(manifest.shards):
        if include_training or number in held_out:
            check_size(folder, shard)


def find_damage(folder: Path, manifest: Manifest) -> list[str]:
    """Verify the checksum of every shard, and return one message for each damaged one.

    In a copy, missing shards are fetched, which verifies them.
    """
    found, copy = [], RemoteCopy.of(folder)
    for shard in manifest.shards:
        try:
            if copy is not None:
                copy.ensure(shard)
            check_size(folder, shard)
        except DataError as error:
            found.append(f"{error.problem}; expected {error.expected or 'the file'}")
            continue
        if checksum(folder / shard.path) != shard.sha256:
            found.append(f"the shard {folder / shard.path} does not have the recorded checksum")
    return found
