"""TensorBoard plugin: its hook, which imports the library on its first call."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from xlm_plugins import hookimpl

if TYPE_CHECKING:
    from xlm_tensorboard.writer import Writer

_writer: Writer | None = None
"""The writer of the current run; a process trains one run at a time."""


@hookimpl
def xlm_step_end(run: Path, step: int, metrics: Mapping[str, float]) -> None:
    global _writer
    if _writer is None or not _writer.is_followed_by(run, step):
        from xlm_tensorboard.writer import Writer

        _writer = Writer(run, step)
    _writer.write(step, metrics)
