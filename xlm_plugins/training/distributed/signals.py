"""Signals that ask a run to save and stop: Ctrl-C, SIGTERM, and SLURM's SIGUSR1."""

from __future__ import annotations

import os
import signal
from types import FrameType

REQUEUED = "SIGUSR1"
"""The signal that SLURM can send before a job's time limit; after it, the job is requeued.  SIGTERM
does not requeue, because `scancel` sends it as well."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopAsked(Exception):  # noqa: N818  # no error: it ends an evaluation early
    """A signal came: all ranks together leave what they are doing unfinished."""


class StopRequest:
    """While entered, the first signal is noted, and a second Ctrl-C stops immediately.

    ``can_save`` is set once there is something to save: before, any Ctrl-C stops immediately.
    """

    def __init__(self) -> None:
        self.signal = 0
        self.can_save = False
        self._before: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> StopRequest:
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def asked(self) -> bool:
        """Whether this process has received a signal."""
        return self.signal > 0

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and (self.signal == signal.SIGINT or not self.can_save):
            raise KeyboardInterrupt
        self.signal = number
        if number == signal.SIGINT:
            os.write(2, b"\nsaving after this step; press Ctrl-C again to stop immediately\n")
