"""What is said to the user beside a command's result: on standard error, and in a log file.

Everything is a record of the standard library's logger ``xlm_plugins``.  A warning is what a user
should look at, a note (info) what is shown unless ``--quiet`` is given, and a debug message what
only ``--verbose`` shows.  The log file has all of them.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from xlm_plugins.core.errors import OptionError, without_passwords

if TYPE_CHECKING:
    from rich.console import Console

LOG = logging.getLogger("xlm_plugins")
_INHERITED = "_XLM_LOG_FILE"
"""Names the file to the processes that this one starts: loaders, the commands of a demo."""

_MOST_EARLY = 100


class _Screen(logging.Handler):
    """Standard error, or the console of the record, which may keep a live table in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        console: Console | None = getattr(record, "console", None)
        text = without_passwords(record.getMessage())
        if record.levelno < logging.INFO:
            text = f"{record.relativeCreated / 1000:8.2f} s  {text}"
        if console is not None:
            # A terminal gets whole words; a line of a pipe stays one, so that it can be searched.
            is_one_line = not console.is_terminal
            console.print(text, highlight=False, markup=False, soft_wrap=is_one_line)
        elif not hasattr(record, "console"):
            print(text, file=sys.stderr, flush=True)


class _File(logging.FileHandler):
    """Appends to a file, line by line; a full disk is told once, and ends no run."""

    _failed = False
    _lines = logging.Formatter()

    def format(self, record: logging.LogRecord) -> str:
        """Date, time, process, level and text, whose further lines are indented."""
        stamp = self._lines.formatTime(record)
        text = without_passwords(self._lines.format(record)).replace("\n", "\n    ")
        return f"{stamp} {record.process} {record.levelname.lower()}: {text}"

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        """Tell the first failure."""
        if not self._failed:
            self._failed = True
            print(f"the log file cannot be written: {sys.exc_info()[1]}", file=sys.stderr)


class _Early(logging.Handler):
    """Keeps what is said before the arguments have told of a log file."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.records: deque[logging.LogRecord] = deque(maxlen=_MOST_EARLY)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


_SCREEN = _Screen(logging.INFO)
_EARLY = _Early()
LOG.addHandler(_SCREEN)
LOG.addHandler(_EARLY)
LOG.setLevel(logging.INFO)


def note(text: object, level: int = logging.INFO) -> None:
    """Say something on standard error and in the log file."""
    LOG.log(level, "%s", text)


def note_on(console: Console | None, text: object, level: int = logging.INFO) -> None:
    """Say something on a console of rich; None for the log file alone."""
    LOG.log(level, "%s", text, extra={"console": console})


def warn(text: object) -> None:
    """Say something that the user should look at, even with ``--quiet``."""
    note(text, logging.WARNING)


def is_quiet() -> bool:
    """Whether notes and progress are not shown."""
    return _SCREEN.level > logging.INFO


def show(level: int) -> None:
    """Show only what has this level or a higher one."""
    _SCREEN.setLevel(level)
    _listen()


def write_to(path: Path, rank: int = 0) -> None:
    """Append everything to a log file, too.

    :param rank: of several processes; each but the first has a file of its own, PATH.rank-1,
        since file systems of clusters lose lines where several hosts append to one file.
    :raises OptionError: it cannot be written.
    """
    path = path.absolute()
    if rank:
        path = path.with_name(f"{path.name}.rank-{rank}")
    if os.environ.get(_INHERITED) == str(path):
        return  # is written to already
    try:
        handler = _File(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise OptionError(
            f"--log-file {path} cannot be written: {error.strerror}",
            expected="a file in a folder that exists",
            remedy=f"mkdir -p {path.parent}" if not path.parent.exists() else "",
        ) from error
    _leave_files()
    os.environ[_INHERITED] = str(path)
    LOG.addHandler(handler)
    _listen()
    note_on(None, shlex.join(sys.argv), logging.DEBUG)
    for record in _EARLY.records:
        handler.handle(record)


@contextmanager
def session() -> Iterator[None]:
    """While entered, `show` and `write_to` hold."""
    _EARLY.records.clear()
    try:
        yield
    finally:
        _leave_files()
        show(logging.INFO)


def _leave_files() -> None:
    for handler in [handler for handler in LOG.handlers if isinstance(handler, _File)]:
        LOG.removeHandler(handler)
        handler.close()
    os.environ.pop(_INHERITED, None)


def _listen() -> None:
    """Make records that some handler wants, and no others."""
    in_file = any(isinstance(handler, _File) for handler in LOG.handlers)
    LOG.setLevel(logging.DEBUG if in_file else min(_SCREEN.level, logging.INFO))


def _join() -> None:
    """Write to the file of the process that started this one."""
    if file := os.environ.get(_INHERITED):
        LOG.addHandler(_File(file, encoding="utf-8", errors="backslashreplace"))
        _listen()


_join()
