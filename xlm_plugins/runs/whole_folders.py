"""Folders that are either whole or absent.

A folder is written under a hidden name, flushed to the disk with its checksums, and renamed; a
kill at any moment leaves the folders before it as they were.  One process at a time writes here:
it holds the run's lock.

``.NAME.partial`` is being written, ``.NAME.old`` is whole and being replaced, ``.NAME.gone`` is
being deleted.  After a kill, `clear_leftovers` puts things right.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from xlm_plugins.core.errors import RESUMABLE_STATUS, BundleError, RunError
from xlm_plugins.core.files import checksum, whole_folder, write_json

CHECKSUMS_NAME = "checksums.json"
_HIDDEN = re.compile(r"\.(.+)\.(partial|old|gone)")
_STEP = re.compile(r"step-(\d+)")


def write_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Write a folder as a whole, replacing one of that name.

    :param fill: writes the files into the folder that it is given.
    """
    clear_leftovers(folder.parent)
    try:
        with whole_folder(folder) as partial:
            fill(partial)
            _seal(partial)
            if folder.exists():
                folder.rename(_hidden(folder, "old"))
        flush(folder.parent)
    finally:
        clear_leftovers(folder.parent)


def clear_leftovers(parent: Path) -> None:
    """Remove what a kill left half-written or half-deleted; put back what it left replaced by none.

    :param parent: of the folders that `write_folder` wrote.
    """
    for path in parent.iterdir() if parent.is_dir() else ():
        if match := _HIDDEN.fullmatch(path.name):
            folder = parent / match[1]
            if match[2] == "old" and not folder.exists():
                path.rename(folder)
            else:
                shutil.rmtree(path, ignore_errors=True)


def standing(folder: Path) -> Path:
    """Where a folder lies; aside, if the process that was replacing it was killed just then."""
    aside = _hidden(folder, "old")
    return aside if aside.is_dir() and not folder.exists() else folder


def verify(folder: Path) -> None:
    """Read a folder that `write_folder` wrote and compare it with its checksums.

    :raises BundleError: a file is missing or differs, by name.
    """
    remedy = "take an older checkpoint, or copy the folder again from where it is whole"
    try:
        checksums = json.loads((folder / CHECKSUMS_NAME).read_text(encoding="utf-8"))
        expected = {name: (entry["size"], entry["sha256"]) for name, entry in checksums.items()}
    except FileNotFoundError:
        raise BundleError(f"{folder} has no {CHECKSUMS_NAME}", remedy=remedy) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BundleError(f"{folder / CHECKSUMS_NAME} cannot be read", remedy=remedy) from None
    for name, (size, digest) in expected.items():
        path = folder / name
        if not path.is_file():
            raise BundleError(f"{path} is missing", remedy=remedy)
        if path.stat().st_size != size:
            raise BundleError(
                f"{path} is truncated or damaged: {path.stat().st_size} bytes",
                expected=f"{size} bytes",
                remedy=remedy,
            )
        if checksum(path) != digest:
            raise BundleError(f"{path} is damaged: its checksum differs", remedy=remedy)


def latest_good(checkpoints: Path) -> tuple[Path | None, list[tuple[Path, str]]]:
    """The newest checkpoint that is whole.

    :param checkpoints: a folder of ``step-N`` folders.
    :returns: the folder, or None where none was ever written to the end; and each newer one that
        had to be passed over, with the reason.
    :raises BundleError: there are checkpoints, and all of them are damaged.
    """
    rejected = []
    for update, folder in reversed(_steps(checkpoints)):
        try:
            if not folder.is_dir():
                raise BundleError(f"saving step-{update} did not come to its end")
            verify(folder)
        except BundleError as error:
            rejected.append((folder, error.problem))
        else:
            return folder, rejected
    if any(folder.is_dir() for folder, _ in rejected):
        raise BundleError(
            f"no checkpoint is whole: {'; '.join(why for _, why in rejected)}",
            remedy=f"copy one again from where it is whole; or delete {checkpoints}, and the run "
            "starts from its beginning",
        )
    return None, rejected


def prune(checkpoints: Path, update: int, keep: int) -> None:
    """Remove all but the newest ``keep`` of the ``step-N`` folders.

    :param update: the one just written.  What lies beyond it was damaged when the run went on from
        an older one, and must not count as new.
    """
    steps = _steps(checkpoints)
    kept = [folder for number, folder in steps if number <= update][-keep:]
    for _, folder in steps:
        if folder not in kept:
            # What cannot go now, as others read it on NFS, is tried again at the next save.
            shutil.rmtree(folder.rename(_hidden(folder, "gone")), ignore_errors=True)


def _hidden(folder: Path, state: str) -> Path:
    return folder.with_name(f".{folder.name}.{state}")


def _steps(checkpoints: Path) -> list[tuple[int, Path]]:
    """The checkpoints by number, and those that were never written to the end."""
    names = {path.name for path in (checkpoints.iterdir() if checkpoints.is_dir() else ())}
    hidden = [match for name in names if (match := _HIDDEN.fullmatch(name))]
    names.update(match[1] for match in hidden if match[2] == "partial")
    found = [(int(match[1]), name) for name in names if (match := _STEP.fullmatch(name))]
    return [(number, checkpoints / name) for number, name in sorted(found)]


def _seal(folder: Path) -> None:
    """Write the checksums of a folder's files while the disk takes them in."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    with ThreadPoolExecutor(thread_name_prefix="checksum") as pool:
        digests = pool.map(checksum, files)
        for path in files:
            flush(path)
        checksums = {
            path.relative_to(folder).as_posix(): {"sha256": digest, "size": path.stat().st_size}
            for path, digest in zip(files, digests, strict=True)
        }
    write_json(folder / CHECKSUMS_NAME, checksums)
    folders = [path for path in folder.rglob("*") if path.is_dir()]
    for path in (folder / CHECKSUMS_NAME, *folders, folder):
        flush(path)


def flush(path: Path) -> None:
    """Have the disk hold a file, or a folder's list of names, before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
