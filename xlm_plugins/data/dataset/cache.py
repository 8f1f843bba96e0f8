"""The user's cache folder, and the locks of processes that share it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CACHE_VARIABLE = "XLM_CACHE"


def cache_folder() -> Path:
    """Where data is kept between runs: $XLM_CACHE, or else the user's cache folder."""
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE])
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "xlm-plugins"


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold a lock file; other processes wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file closes, however that happens
        yield


@contextmanager
def single_flight(path: Path) -> Iterator[None]:
    """Hold a lock file; other processes wait for the first one, then all proceed at once.

    What the first one makes is then there for all of them, and if it fails, none waits again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(file, fcntl.LOCK_SH)
        yield
