"""Metrics: what is summed while training, and the file they are written to."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xlm_plugins.core.batch import LossOutput
from xlm_plugins.training.engine import Engine
from xlm_plugins.training.storage import storing


@dataclass
class Tally:
    """Sums since the last log line for one objective and step.

    ``sums`` holds loss, targets and correct targets in float64 on the device, so that nothing
    waits for the device before a line is written.
    """

    sums: Tensor
    n_updates: int = 0

    def add(self, output: LossOutput) -> None:
        self.sums += torch.stack([part.detach().double() for part in output])


@dataclass
class Tallies:
    """The tallies of all objectives and steps, and the tokens that they took."""

    device: torch.device
    by_step: dict[tuple[str, str], Tally] = field(default_factory=dict)
    n_tokens: int = 0

    def of(self, objective: str, step: str) -> Tally:
        key = (objective, step)
        if key not in self.by_step:
            self.by_step[key] = Tally(torch.zeros(3, dtype=torch.float64, device=self.device))
        return self.by_step[key]

    def drain(self, engine: Engine) -> tuple[list[dict[str, Any]], int]:
        """One record per objective and step, summed over ranks, and the tokens; starts anew."""
        records = []
        for (objective, step), tally in self.by_step.items():
            loss, n_targets, n_correct = engine.sum(tally.sums).tolist()
            records.append(
                {
                    "objective": objective,
                    "languages": step,
                    "updates": tally.n_updates,
                    "loss": loss / max(n_targets, 1),
                    "accuracy": 100 * n_correct / max(n_targets, 1),
                }
            )
        n_tokens = int(engine.sum(torch.tensor(self.n_tokens, device=self.device)))
        self.by_step = {}
        self.n_tokens = 0
        return records, n_tokens

    def to_json(self, engine: Engine) -> dict[str, Any]:
        """The sums of all ranks, so that a resumed run's next line is the same."""
        return {
            "steps": [
                [objective, step, tally.n_updates, *engine.sum(tally.sums).tolist()]
                for (objective, step), tally in self.by_step.items()
            ],
            "tokens": int(engine.sum(torch.tensor(self.n_tokens, device=self.device))),
        }

    def restore(self, tree: dict[str, Any], rank: int) -> None:
        """Take `to_json`'s sums in; rank 0 holds them for all, so that ranks add up."""
        for objective, step, n_updates, *sums in tree["steps"]:
            tally = self.of(objective, step)
            tally.n_updates = n_updates
            if rank == 0:
                tally.sums += torch.tensor(sums, dtype=torch.float64, device=self.device)
        self.n_tokens = tree["tokens"] if rank == 0 else 0


class MetricsFile:
    """metrics.jsonl: one object a line, with ``kind``, ``step`` and ``time``; rank 0 writes."""

    def __init__(self, path: Path, *, writing: bool) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0) if writing else None

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
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
