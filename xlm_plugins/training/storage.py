"""What a run does when the disk no longer takes what it writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xlm_plugins.core.errors import RunError
from xlm_plugins.training.signals import RESUMABLE_STATUS


class StorageError(RunError):
    """A file of the run could not be written; what was whole before is whole still."""

    exit_status = RESUMABLE_STATUS


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """While entered, something of a run is written.

    :param path: what is written, as the error names it.
    :raises StorageError: the system refuses it: a full disk, a quota, a file system gone read-only.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {error.strerror or error}",
            remedy="mend that (is there room on the disk?) and go on from the last whole "
            "checkpoint: the same command with --resume RUN",
        ) from error
