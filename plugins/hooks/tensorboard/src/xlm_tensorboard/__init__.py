"""A TensorBoard writer as a plugin: its hook.  The library is imported on the first call."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from xlm_plugins import hookimpl

if TYPE_CHECKING:
    from xlm_tensorboard.writer import Writer

_writer: Writer | None = None
"""Of the run that is being trained; a process trains one at a time."""


@hookimpl
def xlm_step_end(run: Path, step: int, metrics: Mapping[str, float]) -> None:
    global _writer
    if _writer is None or not _writer.is_followed_by(run, step):
        from xlm_tensorboard.writer import Writer

        _writer = Writer(run, step)
    _writer.write(step, metrics)
