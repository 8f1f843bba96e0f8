"""Shards: webdataset tar files of packed blocks, written once and read in place.

One webdataset sample holds one block: for each language ``LANG.tokens.npy``, all token ids end
to end, and ``LANG.offsets.npy``, where sentences begin; of held-out text also ``LANG.txt``, the
sentences as they were, one a line.  The tar is not compressed, so a block is read at the offsets
that the manifest records.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from webdataset.writer import TarWriter

from xlm_plugins.core.errors import DataError
from xlm_plugins.core.files import checksum
from xlm_plugins.core.ragged import IntArray, Ragged
from xlm_plugins.data.manifest import Block, Manifest, Shard

_HEADER_BYTES = 256


def token_type(vocabulary_size: int) -> npt.DTypeLike:
    """The narrowest type that holds every id."""
    return np.uint16 if vocabulary_size < 2**16 else np.uint32


@dataclass(frozen=True)
class WrittenShard:
    """A finished shard and the blocks in it."""

    shard: Shard
    blocks: list[Block]


class ShardWriter:
    """Writes the blocks of one shard, then tells where everything lies; a context manager.

    :param path: the tar file to write.
    :param index: the shard's place in `Manifest.shards`.
    """

    def __init__(self, path: Path, index: int) -> None:
        self._path = path
        self._index = index
        self._file = path.open("wb")
        # One fixed time, so that the same text always gives the same bytes.
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

        :param raw: for each language the sentences as text, or None.
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
        """Complete the file and flush it to the disk."""
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
        shard = Shard(self._path.name, self._path.stat().st_size, checksum(self._path))
        return WrittenShard(shard, blocks)


def length_table(sides: tuple[Ragged, ...]) -> npt.NDArray[np.int32]:
    """`Block.lengths`: (longest side, sentences of that length, their tokens), rising."""
    lengths = np.stack([side.lengths for side in sides])
    longest, row = np.unique(lengths.max(axis=0), return_inverse=True)
    n_sentences = np.bincount(row, minlength=len(longest))
    n_tokens = np.zeros(len(longest), np.int64)
    np.add.at(n_tokens, row, lengths.sum(axis=0))
    return np.stack([longest, n_sentences, n_tokens], axis=1).astype(np.int32)


class ShardReader:
    """Reads blocks, one at a time.

    A block is read, not mapped: pages of mapped shards would count as the process's memory, which
    then grew with the corpus, and a shard cut meanwhile would kill the process.

    :param folder: the data set.
    :param manifest: its manifest.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._folder = folder
        self._shards = manifest.shards

    def read(self, block: Block) -> tuple[Ragged, ...]:
        """The block's rows, one `Ragged` for each language in sorted order; read-only.

        :raises DataError: the shard is missing, truncated or damaged.
        """
        check_size(self._folder, self._shards[block.shard])
        languages = sorted({member.partition(".")[0] for member in block.members})
        with (self._folder / self._shards[block.shard].path).open("rb") as shard:
            return tuple(
                Ragged(
                    self._array(shard, block, f"{language}.tokens.npy"),
                    self._array(shard, block, f"{language}.offsets.npy"),
                )
                for language in languages
            )

    def read_text(self, block: Block) -> tuple[list[str], ...]:
        """The sentences of a held-out block as text, a list for each language in sorted order.

        :raises DataError: the shard is missing, truncated or damaged.
        """
        check_size(self._folder, self._shards[block.shard])
        found = []
        with (self._folder / self._shards[block.shard].path).open("rb") as shard:
            for member, (offset, size) in sorted(block.members.items()):
                if member.endswith(".txt"):
                    shard.seek(offset)
                    found.append(shard.read(size).decode("utf-8", "replace").split("\n"))
        return tuple(found)

    def _array(self, shard: BinaryIO, block: Block, member: str) -> IntArray:
        offset, size = block.members[member]
        shard.seek(offset)
        content = shard.read(size)
        header = io.BytesIO(content[:_HEADER_BYTES])
        try:
            np.lib.format.read_magic(header)
            shape, _, dtype = np.lib.format.read_array_header_1_0(header)
            return np.frombuffer(content, dtype, shape[0], header.tell())
        except ValueError as error:
            path = self._folder / self._shards[block.shard].path
            raise DataError(
                f"{path} is damaged: no array where {block.key}.{member} should be",
                remedy=f"see what else is damaged: xlm data {self._folder} --verify",
            ) from error


def check_size(folder: Path, shard: Shard) -> None:
    """Refuse a shard that is not as long as it was when it was written.

    :raises DataError: missing, truncated or longer.
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


def damages(folder: Path, manifest: Manifest) -> list[str]:
    """What is wrong with the shards of a data set, one sentence a damaged shard."""
    found = []
    for shard in manifest.shards:
        try:
            check_size(folder, shard)
        except DataError as error:
            found.append(f"{error.problem}; expected {error.expected or 'the file'}")
            continue
        if checksum(folder / shard.path) != shard.sha256:
            found.append(f"the shard {folder / shard.path} does not have the recorded checksum")
    return found
