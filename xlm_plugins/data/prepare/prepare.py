"""Preparing a data set: text in, a folder of shards with manifest and tokenizer out.

The whole text is checked in one pass before anything is written.  The work is done in
``OUT.partial``, which is renamed to OUT when it is complete, so OUT is never incomplete.  Each
finished shard leaves a record beside it, and the same command resumes after the last one.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from xlm_plugins import __version__
from xlm_plugins.contracts.ragged import IntArray
from xlm_plugins.contracts.tokenizer import Tokenizer
from xlm_plugins.core.errors import DataError
from xlm_plugins.core.files import whole_folder
from xlm_plugins.core.options import to_mapping
from xlm_plugins.core.registry import Component
from xlm_plugins.core.saved_tokenizers import mark_tokenizer, save_tokenizer
from xlm_plugins.data.dataset.manifest import (
    COUNTS_NAME,
    MANIFEST_NAME,
    TOKENIZER_NAME,
    TRAIN,
    Manifest,
    StoredFile,
    Stream,
    TokenizerRecord,
)
from xlm_plugins.data.dataset.shards import ShardReader, ShardWriter
from xlm_plugins.data.prepare.encoding import Encoder, blocks_of, chunks_of, default_workers
from xlm_plugins.data.prepare.lines import TextCount, count_text, sentences
from xlm_plugins.data.prepare.sources import Sources, StreamSource
from xlm_plugins.data.prepare.tokenizer_sample import describe_sample, plan_sample, sampled_texts
from xlm_plugins.data.prepare.unfinished import Partial, check_free

SHARD_BLOCKS = 256
SHARD_BYTES = 2**28


@dataclass(frozen=True)
class TokenizerTraining:
    """A tokenizer that is yet to be trained, on the training text of the source.

    :param vocabulary_size: number of ids that it should have.
    :param options: the component's options object.
    """

    vocabulary_size: int
    options: Any


@dataclass(frozen=True)
class Progress:
    """The progress of `prepare`.

    :param stage: ``read``, ``tokenizer`` or ``encode``.
    :param subject: the stream, or a message to show.
    :param done: sentences done in this stage.
    :param total: sentences in this stage; 0 while that is unknown.
    """

    stage: str
    subject: str
    done: int = 0
    total: int = 0


Report = Callable[[Progress], None]


def prepare(
    sources: Sources,
    out: Path,
    component: Component,
    tokenizer: Tokenizer | TokenizerTraining,
    *,
    workers: int | None = None,
    errors: str = "strict",
    report: Report = lambda progress: None,
) -> Manifest:
    """Encode a source's text and write the data set.

    The result depends, to the bit, on the text, the tokenizer and ``errors`` only.

    :param out: the data set's folder; it must not exist, or be empty.
    :param component: the tokenizer's component.
    :param tokenizer: the tokenizer, or how to train one.
    :param workers: number of processes that encode; None chooses it by the size of the text.
    :param errors: ``strict`` refuses bytes that are not UTF-8, ``replace`` turns them into U+FFFD.
    :raises DataError: the text cannot be used, or ``out`` is taken.
    """
    check_free(out)
    counts = _count(sources, errors, report)
    n_characters = sum(sum(count.n_characters) for count in counts.values())
    with Partial.open(out, _request(sources, component, tokenizer, errors)) as partial:
        job = _Job(sources, counts, component, partial, errors, report)
        folder = job.tokenizer_folder(tokenizer)
        with Encoder(component, folder, workers or default_workers(n_characters)) as encoder:
            record = _record(component, encoder.tokenizer)
            shards: list[Manifest] = []
            for stream in sources.streams:
                shards += job.write_stream(stream, encoder, record, len(shards))
        manifest = _joined(record, shards)
        token_counts, sides = count_tokens(partial.folder, manifest)
        np.save(partial.folder / COUNTS_NAME, token_counts)
        origin = _origin(sources, counts, sides, errors)
        files = _files_beside_shards(partial.folder)
        manifest = replace(manifest, source=origin, files=files)
        (partial.folder / MANIFEST_NAME).write_text(manifest.dumps(), encoding="utf-8")
        partial.complete()
    return manifest


def count_tokens(folder: Path, manifest: Manifest) -> tuple[IntArray, dict[str, Any]]:
    """Count tokens, reading every shard once.

    :returns: the number of occurrences of each id in the training text, shape (vocabulary size,);
        and, for each stream, the tokens and the unknown tokens of each language.
    """
    counts = np.zeros(manifest.tokenizer.size, np.int64)
    reader, unknown = ShardReader(folder, manifest), manifest.tokenizer.roles["unk"]
    streams = {}
    for stream in manifest.streams:
        sides = np.zeros((len(stream.languages), manifest.tokenizer.size), np.int64)
        for block in stream.blocks:
            for of_side, side in zip(sides, reader.read(block), strict=True):
                of_side += np.bincount(side.values, minlength=len(of_side))
        if stream.split == TRAIN:
            counts += sides.sum(axis=0)
        streams[stream.name] = {
            "n_tokens": sides.sum(axis=1).tolist(),
            "n_unknown": sides[:, unknown].tolist(),
        }
    return counts, streams


@dataclass(frozen=True)
class _Job:
    """The preparation of a data set whose text has been checked.

    :param counts: the size of each stream, by its name.
    """

    sources: Sources
    counts: dict[str, TextCount]
    component: Component
    partial: Partial
    errors: str
    report: Report

    def tokenizer_folder(self, tokenizer: Tokenizer | TokenizerTraining) -> Path:
        """The folder of the saved tokenizer, which is trained or copied there first."""
        folder = self.partial.folder / TOKENIZER_NAME
        if not folder.is_dir():
            with whole_folder(folder) as new:
                if isinstance(tokenizer, TokenizerTraining):
                    self._train(tokenizer, new)
                else:
                    save_tokenizer(self.component, tokenizer, new)
        return folder

    def _train(self, training: TokenizerTraining, folder: Path) -> None:
        plan = plan_sample(self.sources, self.counts)
        message = f"{self.component.name} learns from {describe_sample(plan)}"
        self.report(Progress("tokenizer", message))
        tokenizer = self.component.load().train(
            sampled_texts(plan, self.errors),
            training.vocabulary_size,
            training.options,
            folder,
            os.cpu_count() or 1,
        )
        mark_tokenizer(self.component, tokenizer, folder)

    def write_stream(
        self, stream: StreamSource, encoder: Encoder, record: TokenizerRecord, first_shard: int
    ) -> list[Manifest]:
        """Write the missing shards of a stream, and return the records of all of its shards."""
        n_sentences = self.counts[stream.name].n_sentences
        finished = self.partial.finished(stream.name)
        n_read = finished[-1].source["n_read"] if finished else 0
        n_blocks = sum(len(part.streams[0].blocks) for part in finished)
        rest = itertools.islice(sentences(stream, self.errors), n_read, None)
        blocks = blocks_of(encoder.encode(chunks_of(rest), stream.languages), n_sentences, n_read)
        held_out = None if stream.split == TRAIN else RawText(sentences(stream, self.errors))
        while (first := next(blocks, None)) is not None:
            path = self.partial.folder / f"{stream.name}-{len(finished):05d}.tar"
            with ShardWriter(path, first_shard + len(finished)) as writer:
                for block in itertools.chain([first], blocks):
                    key = f"{stream.split}-{'-'.join(stream.languages)}-{n_blocks:06d}"
                    raw = held_out.take(block.numbers) if held_out else None
                    writer.add(key, stream.languages, block.sides, raw)
                    n_blocks += 1
                    self.report(Progress("encode", stream.name, block.n_read, n_sentences))
                    if writer.n_blocks >= SHARD_BLOCKS or writer.n_bytes >= SHARD_BYTES:
                        break
                written = writer.finish()
            part = Stream(stream.split, stream.languages, written.blocks)
            finished.append(Manifest(record, [part], [written.shard], {"n_read": block.n_read}))
            self.partial.add(finished[-1])
        if not n_blocks:
            raise DataError(f"the tokenizer encodes all of {stream.name} to nothing")
        return finished


def _count(sources: Sources, errors: str, report: Report) -> dict[str, TextCount]:
    counts: dict[str, TextCount] = {}
    for stream in sources.streams:
        report(Progress("read", stream.name, sum(c.n_sentences for c in counts.values())))
        counts[stream.name] = count_text(stream, errors)
    return counts


def _files_beside_shards(folder: Path) -> list[StoredFile]:
    """The token counts and the tokenizer's files."""
    paths = [path for path in (folder / TOKENIZER_NAME).rglob("*") if path.is_file()]
    names = sorted(path.relative_to(folder).as_posix() for path in (folder / COUNTS_NAME, *paths))
    return [StoredFile.of(folder, name) for name in names]


class RawText:
    """The text of held-out sentences, for metrics that compare generated text with references."""

    def __init__(self, rows: Iterator[tuple[str, ...]]) -> None:
        self._rows = enumerate(rows)

    def take(self, numbers: IntArray) -> list[list[str]]:
        """Take some sentences; their numbers must be ascending, and above all taken before.

        :returns: the texts of each language.
        """
        found = [next(row for i, row in self._rows if i == number) for number in numbers.tolist()]
        return [list(texts) for texts in zip(*found, strict=True)]


def _joined(record: TokenizerRecord, shards: list[Manifest]) -> Manifest:
    """One manifest from the records of all shards, which come stream by stream."""
    streams = []
    for _, group in itertools.groupby(shards, lambda shard: shard.streams[0].name):
        parts = [shard.streams[0] for shard in group]
        blocks = [block for part in parts for block in part.blocks]
        streams.append(Stream(parts[0].split, parts[0].languages, blocks))
    return Manifest(record, streams, [shard.shards[0] for shard in shards])


def _record(component: Component, tokenizer: Tokenizer) -> TokenizerRecord:
    vocabulary = tokenizer.vocabulary()
    return TokenizerRecord(
        component.name,
        component.distribution,
        component.version,
        tokenizer.fingerprint,
        vocabulary.size,
        dict(vocabulary.roles),
        list(vocabulary.reserved),
    )


def _origin(
    sources: Sources, counts: dict[str, TextCount], sides: dict[str, Any], errors: str
) -> dict[str, Any]:
    """What the manifest records about the text: names of files, and what was read and dropped.

    :param sides: of each stream, what was counted for each language.
    """
    streams = {
        stream.name: {
            "files": [[path.name for path in files] for files in stream.files],
            "n_lines": counts[stream.name].n_lines,
            "n_blank": counts[stream.name].n_blank,
            "n_characters": list(counts[stream.name].n_characters),
            **sides[stream.name],
        }
        for stream in sources.streams
    }
    unused = [asdict(group) for group in sources.unused]
    return {"errors": errors, "streams": streams, "unused": unused}


def _request(
    sources: Sources, component: Component, tokenizer: Tokenizer | TokenizerTraining, errors: str
) -> dict[str, Any]:
    """Everything that determines the result; only work for an equal request is resumed."""
    if isinstance(tokenizer, TokenizerTraining):
        wanted = {
            "vocabulary_size": tokenizer.vocabulary_size,
            "options": to_mapping(tokenizer.options),
        }
    else:
        wanted = {"fingerprint": tokenizer.fingerprint}
    return {
        "version": __version__,
        "component": [component.full_name, component.version],
        "tokenizer": wanted,
        "errors": errors,
        "streams": {
            stream.name: [[_identity(path) for path in files] for files in stream.files]
            for stream in sources.streams
        },
    }


def _identity(path: Path) -> list[Any]:
    status = path.stat()
    return [str(path.resolve()), status.st_size, status.st_mtime_ns]
