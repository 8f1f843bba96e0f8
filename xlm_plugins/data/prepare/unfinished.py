"""The folder in which a data set is made, until it is complete and renamed."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlm_plugins.core.errors import DataError, XLMError
from xlm_plugins.core.files import write_json, write_text
from xlm_plugins.data.dataset.manifest import MANIFEST_NAME, Manifest

_RECORDS = "unfinished"
_REQUEST = "request.json"


@dataclass(frozen=True)
class Partial:
    """Work towards ``out`` that can be resumed after an interruption.

    The request, and a record of each finished shard (a manifest of that shard only), lie in a
    folder ``unfinished``, which is removed when the data set is complete.
    """

    folder: Path
    out: Path

    @classmethod
    @contextmanager
    def open(cls, out: Path, request: dict[str, Any]) -> Iterator[Partial]:
        """Resume the work towards ``out`` if it was for the same request, or else start afresh.

        :raises DataError: ``out`` is taken, or another process is working on it.
        """
        check_free(out)
        partial = cls(out.with_name(out.name + ".partial"), out)
        partial.folder.mkdir(parents=True, exist_ok=True)
        with _locked(partial.folder):
            if partial._request() != request:
                partial._start_afresh(request)
            try:
                yield partial
            except XLMError:
                if not any(partial.folder.glob(f"{_RECORDS}/*-*.json")):
                    shutil.rmtree(partial.folder)  # there is no work to lose
                raise

    def finished(self, stream: str) -> list[Manifest]:
        """The records of a stream's finished shards, in order."""
        records: list[Manifest] = []
        while (path := self._record(stream, len(records))).is_file():
            records.append(Manifest.loads(path.read_text(encoding="utf-8"), str(path)))
        return records

    def add(self, record: Manifest) -> None:
        """Record one more finished shard of a stream."""
        stream = record.streams[0].name
        path = self._record(stream, len(self.finished(stream)))
        write_text(path, record.dumps())

    def complete(self) -> None:
        """Rename the folder to ``out``."""
        self.folder.rename(self.out)
        shutil.rmtree(self.out / _RECORDS)

    def _record(self, stream: str, number: int) -> Path:
        return self.folder / _RECORDS / f"{stream}-{number:05d}.json"

    def _request(self) -> Any:
        path = self.folder / _RECORDS / _REQUEST
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def _start_afresh(self, request: dict[str, Any]) -> None:
        content = {path.name for path in self.folder.iterdir()}
        if content and _RECORDS not in content:
            raise DataError(
                f"{self.folder} is needed to prepare the data set, but holds something else",
                remedy="move it away, or choose another folder for the data set",
            )
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        (self.folder / _RECORDS).mkdir()
        write_json(self.folder / _RECORDS / _REQUEST, request)


def check_free(out: Path) -> None:
    """Refuse to overwrite anything.

    :raises DataError: ``out`` exists and is not an empty folder.
    """
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists():
        what = "is already a data set" if (out / MANIFEST_NAME).is_file() else "already exists"
        raise DataError(
            f"{out} {what}",
            expected="a folder that does not exist yet",
            remedy=f"choose another name, or remove it: rm -r {out}",
        )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(
                f"another process is working in {folder}", remedy="wait for it, or stop it"
            ) from error
        yield
    finally:
        os.close(descriptor)
