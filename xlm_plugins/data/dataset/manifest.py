"""The manifest: what a data set holds, where each block lies, and how long its sentences are.

A data set is a folder of webdataset tar shards, ``manifest.json``, ``token_counts.npy`` and
``tokenizer/``.  A *stream* is the text of one language, or of one language pair, in one split; it
is divided into *blocks* of many sentences, the unit of reading.  Block members are plain ``.npy``
files, so that any webdataset pipeline can read the shards too.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from xlm_plugins.contracts.batch import Vocabulary
from xlm_plugins.contracts.ragged import Ragged, offsets_of
from xlm_plugins.core.errors import DataError
from xlm_plugins.core.files import checksum
from xlm_plugins.core.messages import LOG

FORMAT = 2
MANIFEST_NAME = "manifest.json"
COUNTS_NAME = "token_counts.npy"
TOKENIZER_NAME = "tokenizer"
TRAIN = "train"
"""The split that is trained on; all others are held out."""


@dataclass(frozen=True)
class Block:
    """Many sentences (or sentence pairs) in one webdataset sample.

    :param shard: index into `Manifest.shards`.
    :param key: the sample's key in the shard.
    :param members: offset and size in bytes of each member in the shard, by name:
        ``LANG.tokens.npy`` and ``LANG.offsets.npy``, and for held-out text ``LANG.txt`` as well.
    :param n_sentences: sentences, or pairs.
    :param lengths: see `length_table`; enough to plan batches without reading the block.
    """

    shard: int
    key: str
    members: dict[str, tuple[int, int]]
    n_sentences: int
    lengths: npt.NDArray[np.int32] = field(compare=False)

    @property
    def n_tokens(self) -> int:
        return int(self.lengths[:, 2].sum())

    def placeholder_rows(self, n_sides: int) -> tuple[Ragged, ...]:
        """Rows of zeros in place of the block: as many, and with as many tokens.

        They are sorted by length, and the first side of a pair is the longer one.
        """
        longest, n_rows, n_tokens = self.lengths.astype(np.int64).T
        lengths = [np.repeat(longest, n_rows)]
        if n_sides == 2:
            least, spare = np.divmod(n_tokens - longest * n_rows, n_rows)
            row = np.arange(len(lengths[0])) - np.repeat(offsets_of(n_rows)[:-1], n_rows)
            lengths.append(np.repeat(least, n_rows) + (row < np.repeat(spare, n_rows)))
        return tuple(Ragged(np.zeros(n.sum(), np.uint16), offsets_of(n)) for n in lengths)


def length_table(sides: tuple[Ragged, ...]) -> npt.NDArray[np.int32]:
    """How many rows of a block have which length, in ascending order.

    :param sides: one `Ragged` for each language, all with the same number of rows.
    :returns: for each length in tokens of a row's longest side: that length, the number of such
        rows, and their tokens on all sides.  Shape: (n_lengths, 3)
    """
    lengths = np.stack([side.lengths for side in sides])
    longest, row = np.unique(lengths.max(axis=0), return_inverse=True)
    n_sentences = np.bincount(row, minlength=len(longest))
    n_tokens = np.zeros(len(longest), np.int64)
    np.add.at(n_tokens, row, lengths.sum(axis=0))
    return np.stack([longest, n_sentences, n_tokens], axis=1).astype(np.int32)


@dataclass(frozen=True)
class Stream:
    """The text of one language (or pair, codes in sorted order) in one split."""

    split: str
    languages: tuple[str, ...]
    blocks: list[Block]

    @property
    def name(self) -> str:
        """``train.en`` or ``train.en-fr``."""
        return f"{self.split}.{'-'.join(self.languages)}"

    @property
    def n_sentences(self) -> int:
        return sum(block.n_sentences for block in self.blocks)

    @property
    def n_tokens(self) -> int:
        return sum(block.n_tokens for block in self.blocks)


@dataclass(frozen=True)
class StoredFile:
    """One file of a data set.

    :param path: relative to the data set's folder, with ``/`` on every system.
    :raises ValueError: the path leads out of the data set.
    """

    path: str
    n_bytes: int
    sha256: str

    def __post_init__(self) -> None:
        # The manifest may come from elsewhere, and its paths say where files are written.
        parts = PurePosixPath(self.path).parts
        if not parts or parts[0] == "/" or ".." in parts or "\\" in self.path:
            raise ValueError(f"the path {self.path!r} leads out of the data set")

    @classmethod
    def of(cls, folder: Path, path: str) -> StoredFile:
        """The record of an existing file."""
        return cls(path, (folder / path).stat().st_size, checksum(folder / path))


@dataclass(frozen=True)
class TokenizerRecord:
    """The tokenizer that the text was encoded with."""

    name: str
    distribution: str
    version: str
    fingerprint: str
    size: int
    roles: dict[str, int]
    reserved: list[int]


@dataclass(frozen=True)
class Manifest:
    """Everything that is known about a data set without reading a shard.

    :param files: all other files: the tokenizer's and the token counts.  Reading from a URL needs
        their names; data sets made by older versions do not list them.
    """

    tokenizer: TokenizerRecord
    streams: list[Stream]
    shards: list[StoredFile]
    source: dict[str, Any] = field(default_factory=dict)
    files: list[StoredFile] = field(default_factory=list)
    format: int = FORMAT

    @property
    def languages(self) -> tuple[str, ...]:
        """All languages, sorted."""
        return tuple(sorted({lang for stream in self.streams for lang in stream.languages}))

    def monolingual(self, split: str) -> list[str]:
        """Languages with monolingual text in a split, sorted."""
        return sorted(s.languages[0] for s in self._of(split, 1))

    def pairs(self, split: str) -> list[tuple[str, str]]:
        """Language pairs with parallel text in a split, sorted."""
        return sorted((s.languages[0], s.languages[1]) for s in self._of(split, 2))

    def _of(self, split: str, n_languages: int) -> list[Stream]:
        return [s for s in self.streams if s.split == split and len(s.languages) == n_languages]

    def stream(self, split: str, languages: tuple[str, ...]) -> Stream:
        """The stream of a language, or of a pair in either order.

        :raises DataError: there is none; lists those that there are.
        """
        wanted = tuple(sorted(languages))
        for stream in self.streams:
            if stream.split == split and tuple(sorted(stream.languages)) == wanted:
                return stream
        have = [s.name for s in self.streams if len(s.languages) == len(wanted)]
        raise DataError(
            f"the data has no {split}.{'-'.join(languages)}",
            expected=f"one of {', '.join(sorted(have))}" if have else "",
            remedy="add the text to the source and prepare it again, or choose other steps",
        )

    def vocabulary(self, counts: npt.NDArray[np.int64] | None = None) -> Vocabulary:
        """What objectives need to know about the tokenizer."""
        record = self.tokenizer
        return Vocabulary(record.size, record.roles, tuple(record.reserved), counts)

    @property
    def fingerprint(self) -> str:
        """A hash of the content: tokenizer, streams and shards."""
        names = ("tokenizer", "streams", "shards", "format")
        content = {name: getattr(self, name) for name in names}
        text = json.dumps(content, default=_plain, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def dumps(self) -> str:
        """The manifest as JSON, one block per line."""
        text = json.dumps(self, default=_plain, separators=(",", ":"))
        return text.replace('{"shard"', '\n{"shard"')

    @classmethod
    def loads(cls, text: str | bytes, origin: str) -> Manifest:
        """Read a manifest's JSON.

        :param origin: what error messages call the file.
        :raises DataError: it is not a manifest, or has another format.
        """
        try:
            tree = json.loads(text, object_hook=_block_or_dict)
            if tree["format"] != FORMAT:
                raise DataError(
                    f"{origin} has data format {tree['format']}",
                    expected=f"format {FORMAT}",
                    remedy="prepare the text again with this version: xlm prepare SOURCE OUT",
                )
            return cls(
                TokenizerRecord(**tree["tokenizer"]),
                [_stream(item) for item in tree["streams"]],
                [StoredFile(**item) for item in tree["shards"]],
                tree["source"],
                [StoredFile(**item) for item in tree.get("files", [])],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{origin} is not a manifest of a data set: {type(error).__name__}: {error}",
                remedy="prepare the text again: xlm prepare SOURCE OUT",
            ) from error

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """The manifest of a data set folder.

        :raises DataError: there is none.
        """
        path = folder / MANIFEST_NAME
        if not path.is_file():
            raise DataError(
                f"{folder} is not a data set: it has no {MANIFEST_NAME}",
                remedy=f"make one from your text: xlm prepare SOURCE {folder}",
            )
        LOG.debug("reading %s", path)
        return cls.loads(path.read_bytes(), str(path))


def _stream(item: dict[str, Any]) -> Stream:
    return Stream(item["split"], tuple(item["languages"]), item["blocks"])


def _block_or_dict(item: dict[str, Any]) -> Block | dict[str, Any]:
    """Build each block while parsing: its length table is far smaller than its JSON tree."""
    if "lengths" not in item:
        return item
    return Block(
        item["shard"],
        item["key"],
        {name: (offset, size) for name, (offset, size) in item["members"].items()},
        item["n_sentences"],
        np.array(item["lengths"], np.int32).reshape(-1, 3),
    )


def _plain(value: Any) -> Any:
    """The JSON form of a dataclass or an array."""
    return value.tolist() if isinstance(value, np.ndarray) else vars(value)
