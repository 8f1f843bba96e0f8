"""Folders of a run, such as checkpoints, that are either whole or absent.

A folder is written under a hidden name, flushed to disk with its checksums, and renamed; a kill at
any moment leaves earlier folders intact.  Only one process writes: the one that holds the run's
lock.

``.NAME.partial`` is being written, ``.NAME.old`` is whole and being replaced, ``.NAME.gone`` is
being deleted.  `clear_leftovers` tidies up after a kill.
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
from xlm_plugins.core.messages import LOG

CHECKSUMS_NAME = "checksums.json"
_HIDDEN = re.compile(r"\.(.+)\.(partial|old|gone)")
_STEP = re.compile(r"step-(\d+)")


class StorageError(RunError):
    """A file of the run could not be written; what was intact before still is."""

    exit_status = RESUMABLE_STATUS


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """While entered, a part of a run is written.

    :param path: what is written, for the error message.
    :raises StorageError: the system refuses: a full disk, a quota, a read-only file system.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {error.strerror or error}",
            remedy="fix the cause (is the disk full?), and resume from the last intact checkpoint: "
            "the same command with --resume RUN",
        ) from error


def write_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Write a folder whole or not at all, replacing one of the same name.

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
        LOG.debug("wrote %s", folder)
    finally:
        clear_leftovers(folder.parent)


def clear_leftovers(parent: Path) -> None:
    """Remove folders that a kill left half written or half deleted, and restore replaced ones.

    :param parent: of folders that `write_folder` wrote.
    """
    for path in parent.iterdir() if parent.is_dir() else ():
        if match := _HIDDEN.fullmatch(path.name):
            folder = parent / match[1]
            if match[2] == "old" and not folder.exists():
                path.rename(folder)
            else:
                shutil.rmtree(path, ignore_errors=True)


def locate(folder: Path) -> Path:
    """The path of a folder, which is hidden if a kill interrupted its replacement."""
    aside = _hidden(folder, "old")
    return aside if aside.is_dir() and not folder.exists() else folder


def verify(folder: Path) -> None:
    """Compare a folder that `write_folder` wrote with its checksums.

    :raises BundleError: names the file that is missing or differs.
    """
    remedy = "use an older checkpoint, or copy the folder again from an intact copy"
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
    """The newest intact checkpoint.

    :param checkpoints: a folder of ``step-N`` folders.
    :returns: the folder, or None if none was ever completed; and the newer ones that had to be
        skipped, with the reasons.
    :raises BundleError: there are checkpoints, and all of them are damaged.
    """
    rejected = []
    for update, folder in reversed(_steps(checkpoints)):
        try:
            if not folder.is_dir():
                raise BundleError(f"step-{update} was not saved completely")
            verify(folder)
        except BundleError as error:
            rejected.append((folder, error.problem))
        else:
            return folder, rejected
    if any(folder.is_dir() for folder, _ in rejected):
        raise BundleError(
            f"no checkpoint is intact: {'; '.join(why for _, why in rejected)}",
            remedy=f"copy one again from an intact copy; or delete {checkpoints}, and the run "
            "starts from the beginning",
        )
    return None, rejected


def latest(checkpoints: Path) -> Path | None:
    """The newest checkpoint that was saved completely; None if there is none.

    Its files are not verified, unlike those of `latest_good`: that reads all of them.
    """
    complete = [folder for _, folder in _steps(checkpoints) if folder.is_dir()]
    return complete[-1] if complete else None


def prune(checkpoints: Path, update: int, keep: int) -> None:
    """Remove all but the newest ``keep`` of the ``step-N`` folders.

    :param update: the one just written.  Later ones were damaged when the run resumed from an
        older one, and must not count as new.
    """
    steps = _steps(checkpoints)
    kept = [folder for number, folder in steps if number <= update][-keep:]
    for _, folder in steps:
        if folder not in kept:
            # What cannot be deleted now, because it is read over NFS, goes at the next save.
            shutil.rmtree(folder.rename(_hidden(folder, "gone")), ignore_errors=True)


def _hidden(folder: Path, state: str) -> Path:
    return folder.with_name(f".{folder.name}.{state}")


def _steps(checkpoints: Path) -> list[tuple[int, Path]]:
    """All checkpoints by number, including those that were not saved completely."""
    names = {path.name for path in (checkpoints.iterdir() if checkpoints.is_dir() else ())}
    hidden = [match for name in names if (match := _HIDDEN.fullmatch(name))]
    names.update(match[1] for match in hidden if match[2] == "partial")
    found = [(int(match[1]), name) for name in names if (match := _STEP.fullmatch(name))]
    return [(number, checkpoints / name) for number, name in sorted(found)]


def _seal(folder: Path) -> None:
    """Flush a folder to disk, computing and writing the checksums of its files meanwhile."""
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
    """Wait until a file, or a folder's list of names, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
