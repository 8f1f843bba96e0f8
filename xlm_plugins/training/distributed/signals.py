"""Signals that ask a run to save and stop: Ctrl-C, SIGTERM, and SLURM's SIGUSR1."""

from __future__ import annotations

import os
import signal
from types import FrameType

REQUEUED = "SIGUSR1"
"""The signal that SLURM is told to send ahead of a job's end; after it the job is put back into
the queue.  SIGTERM is not: it comes from `scancel` too, of somebody who wants no more of it."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopAsked(Exception):  # noqa: N818  # no error: it ends an evaluation early
    """A signal came, and what goes on is left unfinished, on all ranks together."""


class StopRequest:
    """While entered, the first signal is noted, and a second Ctrl-C stops at once.

    ``can_save`` says that there is something to save: before, Ctrl-C stops at once.
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
        """Whether a signal came to this process."""
        return self.signal > 0

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and (self.signal == signal.SIGINT or not self.can_save):
            raise KeyboardInterrupt
        self.signal = number
        if number == signal.SIGINT:
            os.write(2, b"\nsaving after this step; Ctrl-C again stops at once\n")
