"""metrics.jsonl: what a run measures, line by line."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from xlm_plugins.core.errors import RunError
from xlm_plugins.runs.whole_folders import storing


class MetricsFile:
    """metrics.jsonl: one object per line, with ``kind``, ``step`` and ``time``.

    :param writing: whether this process writes; the methods of others do nothing.
    """

    def __init__(self, path: Path, *, writing: bool) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0) if writing else None

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Append one line, immediately visible to readers.

        :raises StorageError: the disk is full; the next start removes the partial line.
        """
        if self._file is None:
            return
        line = {"kind": kind, "step": step, "time": round(time.time(), 3), **values}
        finite = {k: _jsonable(v) for k, v in line.items()}
        left = json.dumps(finite, allow_nan=False).encode() + b"\n"
        with storing(self._path):
            while left:  # an almost full disk takes only a part
                left = left[self._file.write(left) :]

    def position(self) -> int:
        """The number of bytes so far, all of them flushed to disk."""
        if self._file is None:
            return 0
        with storing(self._path):
            os.fsync(self._file.fileno())
        return self._file.tell()

    def cut(self, position: int) -> None:
        """Remove what was written after a checkpoint's position, and an incomplete line."""
        if self._file is not None:
            self._file.truncate(self._path.read_bytes().rfind(b"\n", 0, position) + 1)
            self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a metrics file, without a last line that a kill cut short.

    :raises RunError: a line is damaged.
    """
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if line.endswith("\n"):
                yield _parsed(path, number, line)


def _parsed(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(line)
        found["kind"], found["step"]
    except (ValueError, TypeError, KeyError) as error:
        raise RunError(
            f"{path}, line {number}, is damaged: {line.strip()[:40]!r}",
            expected="an object in JSON with kind and step",
            remedy="remove that line",
        ) from error
    return found


def _jsonable(value: Any) -> Any:
    """Non-finite numbers as text: JSON has no numbers for them, and readers must see them."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
