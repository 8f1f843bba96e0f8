"""Signals that ask a run to save and stop: Ctrl-C, SIGTERM, and SLURM's SIGUSR1."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType

RESUMABLE_STATUS = 75
"""Exit status of a run that saved and stopped because it was asked to (EX_TEMPFAIL)."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """While entered, the first signal is noted, and a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> StopRequest:
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def name(self, number: int) -> str:
        return signal.Signals(number).name

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
        if number == signal.SIGINT:
            os.write(2, b"\nsaving after this step; Ctrl-C again stops at once\n")
