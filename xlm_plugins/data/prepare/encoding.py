"""Encoding in parallel: sentences in, blocks of token ids out, in the order of the text.

The result does not depend on the number of processes: chunk boundaries depend on the text only,
results are taken in order, and blocks are cut from the concatenated rows.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xlm_plugins.contracts.ragged import IntArray, Ragged, stack
from xlm_plugins.contracts.tokenizer import Tokenizer
from xlm_plugins.core.errors import DataError
from xlm_plugins.core.registry import Component
from xlm_plugins.data.dataset.shards import token_type

BLOCK_TOKENS = 250_000
LEAST_BLOCKS = 64
_CHUNK_SENTENCES = 2_000
_CHUNK_CHARACTERS = 2**19

Chunk = tuple[tuple[str, ...], ...]
"""The sentences of each language, all of the same number."""


@dataclass(frozen=True)
class EncodedBlock:
    """The rows of one block.

    :param sides: one `Ragged` for each language; no row is empty on any side.
    :param numbers: the number of each row's sentence in the stream.  Shape: (n_rows,)
    :param n_read: sentences read from the start of the stream to the end of this block, including
        those that encoded to nothing.
    """

    sides: tuple[Ragged, ...]
    numbers: IntArray
    n_read: int


class Encoder:
    """A tokenizer in one or several processes; a context manager.

    :param component: the tokenizer's component.
    :param folder: where the tokenizer is saved; each process loads it from there.
    :param workers: number of processes; 1 encodes in this process.
    """

    def __init__(self, component: Component, folder: Path, workers: int) -> None:
        self._workers = workers
        self._encode = _ChunkEncoder(component, folder)
        self._pool: ProcessPoolExecutor | None = None
        if workers > 1:
            self._pool = ProcessPoolExecutor(
                workers, _process_context(), _start_worker, (component, folder)
            )

    def __enter__(self) -> Encoder:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    @property
    def tokenizer(self) -> Tokenizer:
        return self._encode.tokenizer

    def encode(
        self, chunks: Iterable[Chunk], languages: Sequence[str]
    ) -> Iterator[tuple[Ragged, ...]]:
        """Encode chunks in order, reading only a few ahead.

        :param languages: of the sides of a chunk.
        :raises DataError: a worker process died.
        """
        if self._pool is None:
            yield from (self._encode(chunk, languages) for chunk in chunks)
            return
        waiting: deque[Future[tuple[Ragged, ...]]] = deque()
        try:
            for chunk in chunks:
                waiting.append(self._pool.submit(_encode_in_worker, chunk, languages))
                if len(waiting) > 2 * self._workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise DataError(
                "a process that encodes text died, most likely because memory ran out",
                remedy="run the same command again, and it continues where it stopped; try fewer "
                f"--workers than {self._workers}",
            ) from error


def chunks_of(sentences: Iterable[tuple[str, ...]]) -> Iterator[Chunk]:
    """Group sentences into chunks with a limited number of sentences and characters."""
    rows: list[tuple[str, ...]] = []
    n_characters = 0
    for row in sentences:
        rows.append(row)
        n_characters += sum(map(len, row))
        if len(rows) == _CHUNK_SENTENCES or n_characters >= _CHUNK_CHARACTERS:
            yield tuple(zip(*rows, strict=True))
            rows, n_characters = [], 0
    if rows:
        yield tuple(zip(*rows, strict=True))


def blocks_of(
    encoded: Iterable[tuple[Ragged, ...]], n_sentences: int, n_read: int = 0
) -> Iterator[EncodedBlock]:
    """Divide encoded text into blocks, leaving out rows with an empty side.

    A block ends when it has its share of the stream's sentences (such that there are at least
    `LEAST_BLOCKS`, given enough sentences), or before it would exceed `BLOCK_TOKENS` on all sides
    together; a longer sentence gets its own block.

    :param n_sentences: number of sentences in the whole stream.
    :param n_read: number of sentences of the stream before ``encoded``.
    """
    share = max(1, n_sentences // LEAST_BLOCKS)
    parts: list[tuple[Ragged, ...]] = []
    numbers: list[IntArray] = []
    n_rows = n_tokens = 0
    for chunk in encoded:
        lengths = np.stack([side.lengths for side in chunk])
        kept = np.flatnonzero(lengths.min(axis=0))
        ends = np.cumsum(lengths.sum(axis=0)[kept])
        start = 0
        while start < len(kept):
            before = int(ends[start - 1]) if start else 0
            fitting = int(np.searchsorted(ends, before + BLOCK_TOKENS - n_tokens, side="right"))
            stop = min(fitting, start + share - n_rows)
            stop = max(stop, start + 1 if not n_rows else start)
            if stop > start:
                parts.append(tuple(side.take(kept[start:stop]) for side in chunk))
                numbers.append(n_read + kept[start:stop])
                n_rows += stop - start
                n_tokens += int(ends[stop - 1]) - before
            if stop < len(kept) or n_rows == share:
                read_here = int(kept[stop - 1]) + 1 if stop else 0
                yield EncodedBlock(_joined(parts), np.concatenate(numbers), n_read + read_here)
                parts, numbers, n_rows, n_tokens = [], [], 0, 0
            start = stop
        n_read += chunk[0].n_rows
    if parts:
        yield EncodedBlock(_joined(parts), np.concatenate(numbers), n_read)


def _joined(parts: list[tuple[Ragged, ...]]) -> tuple[Ragged, ...]:
    return tuple(stack(list(side)) for side in zip(*parts, strict=True))


def default_workers(n_characters: int) -> int:
    """How many processes are worth starting for so much text: each takes a second or two."""
    return max(1, min(os.cpu_count() or 1, n_characters // 2**22))


def _process_context() -> multiprocessing.context.BaseContext:
    """Fork from a clean server that has imported torch once, if the system can fork."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


class _ChunkEncoder:
    """Encodes chunks in each process, and narrows the ids to send them back."""

    def __init__(self, component: Component, folder: Path) -> None:
        self.tokenizer: Tokenizer = component.load().load(folder)
        self._narrow = token_type(len(self.tokenizer.tokens()))

    def __call__(self, chunk: Chunk, languages: Sequence[str]) -> tuple[Ragged, ...]:
        rows = (
            self.tokenizer.in_language(language).encode_batch(texts)
            for language, texts in zip(languages, chunk, strict=True)
        )
        return tuple(Ragged(side.values.astype(self._narrow), side.offsets) for side in rows)


_encoder: _ChunkEncoder  # of a worker process; its initializer has no other place to put it


def _start_worker(component: Component, folder: Path) -> None:
    global _encoder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to handle
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _encoder = _ChunkEncoder(component, folder)


def _exit_with_parent() -> None:
    """Exit when the parent is killed, which a worker process does not notice by itself."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _encode_in_worker(chunk: Chunk, languages: Sequence[str]) -> tuple[Ragged, ...]:
    return _encoder(chunk, languages)
