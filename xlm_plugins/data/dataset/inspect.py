"""What is inside a data set: sizes, unknown words, lengths, duplicates and leakage.

Sentences are compared by a 64-bit hash of their token ids, computed for a whole block at once.
To bound memory, duplicates are counted among sentences whose hash falls into a small enough share
of all hashes: an unbiased sample in which equal sentences stay together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from xlm_plugins.contracts.ragged import Ragged
from xlm_plugins.data.dataset.manifest import TRAIN, Manifest, Stream
from xlm_plugins.data.dataset.shards import ShardReader

MOST_HASHES = 4_000_000
BIN_STARTS = (1, 5, 10, 20, 40, 60, 100, 200)
"""Lower bounds of the histogram's bins, in tokens."""

Hashes = npt.NDArray[np.uint64]
_MULTIPLIERS = tuple(
    np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


@dataclass(frozen=True)
class StreamReport:
    """One stream.

    :param n_bytes: size of its members in the shards.
    :param unknown_rate: share of tokens that are the unknown token.
    :param histogram: sentences in each bin of `BIN_STARTS`, by the length of the longest side.
    :param duplicate_rate: share of sentences, or pairs, that repeat an earlier one.  None outside
        the training split.
    """

    name: str
    n_sentences: int
    n_tokens: int
    n_bytes: int
    unknown_rate: float
    histogram: list[int]
    duplicate_rate: float | None


@dataclass(frozen=True)
class LeakageReport:
    """How much of one side of an evaluation stream is in the training text; None if there is none.

    :param same: share of its sentences, or pairs, in the training text of the same stream.
    :param monolingual: share of the side's sentences in the language's monolingual training text.
    :param parallel: share of them in the language's side of any parallel training text.
    """

    name: str
    language: str
    same: float | None
    monolingual: float | None
    parallel: float | None


@dataclass(frozen=True)
class DataReport:
    """What `xlm data` shows."""

    streams: list[StreamReport]
    leakage: list[LeakageReport]


def inspect(folder: Path, manifest: Manifest) -> DataReport:
    """Read every shard once.

    :raises DataError: a shard is missing or truncated.
    """
    reader = ShardReader(folder, manifest)
    held_out = [stream for stream in manifest.streams if stream.split != TRAIN]
    text = {
        stream.name: [_concatenated(reader, stream, side) for side in range(len(stream.languages))]
        for stream in held_out
    }
    seen = _Seen()
    for stream in held_out:
        seen.look_for(stream.languages, text[stream.name])
    unknown = manifest.tokenizer.roles["unk"]
    streams = [_stream_report(stream, reader, unknown, seen) for stream in manifest.streams]
    leakage = [report for s in held_out for report in _leakage(s, text[s.name], seen)]
    return DataReport(streams, leakage)


def row_hashes(rows: Ragged) -> Hashes:
    """A hash of each row's values in order; no row may be empty. Shape: (n_rows,)"""
    positions = rows.positions().values.astype(np.uint64)
    mixed = _mix(rows.values.astype(np.uint64) + _MULTIPLIERS[0] * (positions + np.uint64(1)))
    return _mix(np.add.reduceat(mixed, rows.offsets[:-1].astype(np.intp)))


def joined_hashes(sides: Sequence[Hashes]) -> Hashes:
    """One hash for all sides of each row; a single side keeps its own. Shape: (n_rows,)"""
    hashes = sides[0]
    for side in sides[1:]:
        hashes = _mix(hashes * _MULTIPLIERS[1] + side)
    return hashes


def _mix(values: Hashes) -> Hashes:
    """The finaliser of splitmix64: every bit of the input affects every bit of the output."""
    values = (values ^ (values >> np.uint64(30))) * _MULTIPLIERS[1]
    values = (values ^ (values >> np.uint64(27))) * _MULTIPLIERS[2]
    return values ^ (values >> np.uint64(31))


class _Seen:
    """The hashes of held-out text, and which of them were seen in training text.

    They are kept by where they may be seen: ``("en",)`` is monolingual text, ``("de", "en")``
    whole pairs, and ``"en"`` the English side of any pair.
    """

    def __init__(self) -> None:
        self._hashes: dict[str | tuple[str, ...], Hashes] = {}
        self._seen: dict[str | tuple[str, ...], npt.NDArray[np.bool_]] = {}

    def look_for(self, languages: tuple[str, ...], sides: Sequence[Hashes]) -> None:
        """Add the hashes of a held-out stream."""
        self._add(languages, joined_hashes(sides))
        for language, hashes in zip(languages, sides, strict=True):
            self._add(language, hashes)
            self._add((language,), hashes)

    def mark(self, languages: tuple[str, ...], sides: Sequence[Hashes]) -> None:
        """Mark the held-out rows that occur in a training block."""
        self._mark(languages, joined_hashes(sides))
        if len(languages) > 1:
            for language, hashes in zip(languages, sides, strict=True):
                self._mark(language, hashes)

    def share(self, where: str | tuple[str, ...], hashes: Hashes) -> float | None:
        """The share of these held-out rows that was seen there; None if there is no such text."""
        if where not in self._seen:
            return None
        return float(self._seen[where][np.searchsorted(self._hashes[where], hashes)].mean())

    def _add(self, where: str | tuple[str, ...], hashes: Hashes) -> None:
        self._hashes[where] = np.union1d(self._hashes.get(where, hashes[:0]), hashes)

    def _mark(self, where: str | tuple[str, ...], hashes: Hashes) -> None:
        wanted = self._hashes.get(where)
        if wanted is None:
            return
        seen = self._seen.setdefault(where, np.zeros(len(wanted), bool))
        place = np.minimum(np.searchsorted(wanted, hashes), len(wanted) - 1)
        seen[place[wanted[place] == hashes]] = True


def _concatenated(reader: ShardReader, stream: Stream, side: int) -> Hashes:
    return np.concatenate([row_hashes(reader.read(block)[side]) for block in stream.blocks])


def _stream_report(stream: Stream, reader: ShardReader, unknown: int, seen: _Seen) -> StreamReport:
    n_unknown = 0
    histogram = np.zeros(len(BIN_STARTS), np.int64)
    one_of = -(-stream.n_sentences // MOST_HASHES)
    sampled = []
    for block in stream.blocks:
        sides = reader.read(block)
        n_unknown += sum(int(np.count_nonzero(side.values == unknown)) for side in sides)
        for longest, n_sentences, _ in block.lengths:
            histogram[np.searchsorted(BIN_STARTS, longest, side="right") - 1] += n_sentences
        if stream.split == TRAIN:
            hashes = [row_hashes(side) for side in sides]
            seen.mark(stream.languages, hashes)
            whole = joined_hashes(hashes)
            sampled.append(whole[whole % np.uint64(one_of) == 0])
    return StreamReport(
        name=stream.name,
        n_sentences=stream.n_sentences,
        n_tokens=stream.n_tokens,
        n_bytes=sum(size for block in stream.blocks for _, size in block.members.values()),
        unknown_rate=n_unknown / stream.n_tokens,
        histogram=histogram.tolist(),
        duplicate_rate=_duplicate_rate(np.concatenate(sampled)) if sampled else None,
    )


def _duplicate_rate(hashes: Hashes) -> float:
    return 1 - len(np.unique(hashes)) / len(hashes) if len(hashes) else 0.0


def _leakage(stream: Stream, sides: Sequence[Hashes], seen: _Seen) -> Iterator[LeakageReport]:
    same = seen.share(stream.languages, joined_hashes(sides))
    for language, hashes in zip(stream.languages, sides, strict=True):
        yield LeakageReport(
            name=stream.name,
            language=language,
            same=same,
            monolingual=seen.share((language,), hashes),
            parallel=seen.share(language, hashes),
        )
