"""The user's cache folder, which many processes share."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CACHE_VARIABLE = "XLM_CACHE"


def cache_folder() -> Path:
    """Where data is kept between runs: $XLM_CACHE, else the user's cache folder."""
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE])
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "xlm-plugins"


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """While entered, no other process is at what the lock file stands for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file closes, however that happens
        yield


@contextmanager
def single_flight(path: Path) -> Iterator[None]:
    """Wait until the process that came first is through; those that waited then go on together.

    So what the first one makes is there for all, and where it fails nobody waits twice.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(file, fcntl.LOCK_SH)
        yield
