"""A run whose disk is full for a while: it must end with an error, and resume when there is room.

    python full_disk.py HOW ROOM FOLDER OUT OPTION...

HOW is ``tmpfs``, a small file system of this process's own on FOLDER, or ``limit``, the system's
limit on the size of a file.  ROOM is how many bytes are left, or may be in a file, from
update 7 on.
OUT gets metrics.jsonl at the end.  Exit status 77: this machine mounts no file system for us.
"""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xlm_plugins.cli.main import main
from xlm_plugins.runs.whole_folders import latest_good
from xlm_plugins.training.trainer import Trainer

NEW_NAMESPACE, NEW_USER, PRIVATE = 0x00020000, 0x10000000, (1 << 18) | (1 << 14)
NOT_HERE = 77


def mount(folder: Path) -> None:
    """Mount a file system of 16 MB that only this process sees, and that ends with it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEW_NAMESPACE) and libc.unshare(NEW_NAMESPACE | NEW_USER):
        sys.exit(NOT_HERE)
    libc.mount(b"none", b"/", None, PRIVATE, None)
    if libc.mount(b"none", bytes(folder), b"tmpfs", 0, b"size=16m"):
        sys.exit(NOT_HERE)


def fill_disk(folder: Path, room: int) -> Callable[[], None]:
    """Leave this many bytes free; returns a function that frees the rest."""
    ballast = folder / "ballast"
    free = os.statvfs(folder)
    ballast.write_bytes(bytes(max(free.f_bavail * free.f_bsize - room, 0)))
    return ballast.unlink


def limit_files(folder: Path, room: int) -> Callable[[], None]:
    """Limit the length of files; returns a function that lifts the limit."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)


def at_update(update: int, do: Callable[[], None]) -> None:
    """Do something once, when training reaches an update."""
    do_update = Trainer._update

    def update_after(self: Trainer, drawn: Any, batches: Any) -> None:
        if drawn.index == update:
            Trainer._update = do_update
            do()
        do_update(self, drawn, batches)

    Trainer._update = update_after


def run(how: str, room: int, folder: Path, out: Path, options: list[str]) -> None:
    if how == "tmpfs":
        mount(folder)
    path, undo = folder / "run", []
    shorten = fill_disk if how == "tmpfs" else limit_files
    at_update(7, lambda: undo.append(shorten(folder, room)))
    command = ["train", f"--out={path}", "--resume=auto", *options]
    assert main(command) == 75
    found, _ = latest_good(path / "checkpoints")
    assert found.name == "step-6"
    assert not list(path.glob("*/.*")), "something half-written was left"
    undo[0]()
    assert main(command) == 0
    shutil.copyfile(path / "metrics.jsonl", out)


if __name__ == "__main__":
    sys.stdout = sys.stderr
    run(sys.argv[1], int(sys.argv[2]), *map(Path, sys.argv[3:5]), sys.argv[5:])
