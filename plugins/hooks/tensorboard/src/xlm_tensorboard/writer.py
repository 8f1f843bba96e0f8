"""Writes scalars to TensorBoard event files, a new file each time a run is started or resumed."""

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

    A resumed run repeats the steps after its last checkpoint, so values that were written before
    for ``step`` and later are marked as superseded, and TensorBoard does not show them.

    :param run: the run folder.
    :param step: the first step that is reported since the run was started or resumed.
    """

    def __init__(self, run: Path, step: int) -> None:
        self._run = run
        self._step = step
        folder = run / FOLDER_NAME
        folder.mkdir(exist_ok=True)
        n_before = sum(1 for _ in folder.iterdir())
        # File names start with the time in seconds; the suffix keeps them in order within a second.
        self._file = EventsWriter(str(folder / "events"), f".{n_before:04}")
        weakref.finalize(self, self._file.close)
        if n_before:
            self._append(step, session_log=SessionLog(status=SessionLog.START))

    def is_followed_by(self, run: Path, step: int) -> bool:
        """Whether a call belongs to the same run, not started or resumed again since."""
        return run == self._run and step >= self._step

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write the metrics of a step, and flush them to disk.

        :param metrics: by their names in metrics.jsonl; nothing is written if empty.
        """
        self._step = step
        if metrics:
            values = [Summary.Value(tag=tag(name), simple_value=v) for name, v in metrics.items()]
            self._append(step, summary=Summary(value=values))

    def _append(self, step: int, **content: SessionLog | Summary) -> None:
        self._file.write_event(Event(wall_time=time.time(), step=step, **content))
        self._file.flush()


def tag(name: str) -> str:
    """A metric's TensorBoard tag, whose part before the slash is a section.

    ``train_en_mlm_loss`` becomes ``train/en_mlm_loss``, ``valid_enc.2_pkm_usage`` becomes
    ``valid/enc.2_pkm_usage``; metrics of no split, such as ``learning_rate``, are in ``run/``.
    """
    split, _, rest = name.partition("_")
    return f"{split}/{rest}" if split in SPLITS else f"run/{name}"
