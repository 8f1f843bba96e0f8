"""Scalars into TensorBoard's event files, a new file each time that a run is started."""

from __future__ import annotations

import time
import weakref
from collections.abc import Mapping
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter  # type: ignore[import-untyped]
from tensorboardX.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]
from tensorboardX.proto.summary_pb2 import Summary  # type: ignore[import-untyped]

FOLDER_NAME = "tensorboard"
SPLITS = ("train", "valid", "test")


class Writer:
    """Writes the curves of a run to ``RUN/tensorboard/``.

    A run that goes on after a kill trains some updates again, those after its last checkpoint;
    so what an earlier start wrote from ``step`` on is marked as replaced, and not shown.

    :param run: the run folder.
    :param step: the first step that this start of the run tells of.
    """

    def __init__(self, run: Path, step: int) -> None:
        self._run = run
        self._step = step
        folder = run / FOLDER_NAME
        folder.mkdir(exist_ok=True)
        n_before = sum(1 for _ in folder.iterdir())
        # The library names files by the second, and TensorBoard reads them in order of name.
        self._file = EventsWriter(str(folder / "events"), f".{n_before:04}")
        weakref.finalize(self, self._file.close)
        if n_before:
            self._append(step, session_log=SessionLog(status=SessionLog.START))

    def is_followed_by(self, run: Path, step: int) -> bool:
        """Whether a call is of the same start of the same run."""
        return run == self._run and step >= self._step

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write what was measured after ``step`` updates; it is on disk when this returns.

        :param metrics: by the names of metrics.jsonl; none writes nothing.
        """
        self._step = step
        if metrics:
            values = [Summary.Value(tag=tag(name), simple_value=v) for name, v in metrics.items()]
            self._append(step, summary=Summary(value=values))

    def _append(self, step: int, **what: SessionLog | Summary) -> None:
        self._file.write_event(Event(wall_time=time.time(), step=step, **what))
        self._file.flush()


def tag(name: str) -> str:
    """A metric's name as TensorBoard's, which shows a section for what stands before a slash.

    ``train_en_mlm_loss`` is ``train/en_mlm_loss``, ``valid_enc.2_pkm_usage`` is
    ``valid/enc.2_pkm_usage``; what is of no split, such as ``learning_rate``, is in ``run/``.
    """
    split, _, rest = name.partition("_")
    return f"{split}/{rest}" if split in SPLITS else f"run/{name}"
