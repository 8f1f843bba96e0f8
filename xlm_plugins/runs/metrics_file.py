"""metrics.jsonl: what a run measures, line by line."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from xlm_plugins.runs.whole_folders import storing


class MetricsFile:
    """metrics.jsonl: one object a line, with ``kind``, ``step`` and ``time``; rank 0 writes."""

    def __init__(self, path: Path, *, writing: bool) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0) if writing else None

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Append one line, at once visible to readers.

        :raises StorageError: the disk is full; what is there of the line goes at the next start.
        """
        if self._file is None:
            return
        line = {"kind": kind, "step": step, "time": round(time.time(), 3), **values}
        finite = {k: _jsonable(v) for k, v in line.items()}
        left = json.dumps(finite, allow_nan=False).encode() + b"\n"
        with storing(self._path):
            while left:  # a disk that is nearly full takes a part
                left = left[self._file.write(left) :]

    def position(self) -> int:
        """Bytes written so far, all of them on disk."""
        if self._file is None:
            return 0
        with storing(self._path):
            os.fsync(self._file.fileno())
        return self._file.tell()

    def cut(self, position: int) -> None:
        """Forget what was written behind a checkpoint's position, and what is no whole line."""
        if self._file is not None:
            self._file.truncate(self._path.read_bytes().rfind(b"\n", 0, position) + 1)
            self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a metrics file; a last line cut short by a kill is left out."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.endswith("\n"):
                yield json.loads(line)


def _jsonable(value: Any) -> Any:
    """Non-finite numbers as text: JSON has no other way, and a reader must see them."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
