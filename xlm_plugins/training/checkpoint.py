"""Folders that are either whole or absent, and the training state inside them.

A folder is written under a hidden name, flushed to the disk with its checksums, and renamed; a
kill at any moment leaves the folders before it as they were.  Nothing is pickled.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from xlm_plugins.core.errors import BundleError
from xlm_plugins.core.files import checksum, write_json
from xlm_plugins.model.weights import WEIGHTS_NAME, load_tensors, save_tensors
from xlm_plugins.training.engine import TrainingState

CHECKSUMS_NAME = "checksums.json"
MOMENTS_NAME = "optimizer.safetensors"
STATE_NAME = "state.json"

_PARTIAL = re.compile(r"\..+\.partial-(\d+)")
_STEP = re.compile(r"step-(\d+)")


def write_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Write a folder as a whole, replacing one of that name.

    What killed processes left half-written beside it is removed.

    :param fill: writes the files into the folder that it is given.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder.parent)
    partial = _hidden(folder)
    partial.mkdir()
    try:
        fill(partial)
        _write_checksums(partial)
        for path in (*partial.rglob("*"), partial):
            _flush(path)
        replaced = _set_aside(folder) if folder.exists() else None
        partial.rename(folder)
        _flush(folder.parent)
        if replaced:
            shutil.rmtree(replaced)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


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
    :returns: the folder, or None; and each newer one that had to be passed over, with the reason.
    """
    rejected = []
    for folder in reversed(_steps(checkpoints)):
        try:
            verify(folder)
        except BundleError as error:
            rejected.append((folder, error.problem))
        else:
            return folder, rejected
    return None, rejected


def prune(checkpoints: Path, keep: int) -> None:
    """Remove all but the newest ``keep`` of the ``step-N`` folders."""
    for folder in _steps(checkpoints)[:-keep]:
        shutil.rmtree(_set_aside(folder))


def save_training_state(folder: Path, state: TrainingState) -> None:
    """Write weights, moments and counters into a folder that `write_folder` fills."""
    moments = {
        f"{name}.{key}": tensor
        for key, tensors in state.moments.items()
        for name, tensor in tensors.items()
    }
    save_tensors(folder / WEIGHTS_NAME, state.weights)
    save_tensors(folder / MOMENTS_NAME, moments)
    counters = {"n_updates": state.n_updates, "loss_scale": state.loss_scale}
    write_json(folder / STATE_NAME, counters)


def load_training_state(folder: Path) -> TrainingState:
    """Read what `save_training_state` wrote.

    :raises BundleError: a file is missing or unreadable, by name.
    """
    moments: dict[str, dict[str, Tensor]] = {}
    for full_name, tensor in load_tensors(folder / MOMENTS_NAME).items():
        name, _, key = full_name.rpartition(".")
        moments.setdefault(key, {})[name] = tensor
    try:
        counters = json.loads((folder / STATE_NAME).read_text(encoding="utf-8"))
        n_updates, loss_scale = int(counters["n_updates"]), dict(counters["loss_scale"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{folder / STATE_NAME} cannot be read: {error}") from error
    return TrainingState(load_tensors(folder / WEIGHTS_NAME), moments, n_updates, loss_scale)


def _hidden(folder: Path, what: str = "") -> Path:
    return folder.with_name(f".{folder.name}{what}.partial-{os.getpid()}")


def _set_aside(folder: Path) -> Path:
    """Hide a folder that is to go, so that a kill while it is deleted leaves no torn one."""
    return folder.rename(_hidden(folder, ".old"))


def _steps(checkpoints: Path) -> list[Path]:
    found = [
        (int(match[1]), path)
        for path in (checkpoints.iterdir() if checkpoints.is_dir() else ())
        if (match := _STEP.fullmatch(path.name)) and path.is_dir()
    ]
    return [path for _, path in sorted(found)]


def _remove_leftovers(parent: Path) -> None:
    for path in parent.iterdir():
        match = _PARTIAL.fullmatch(path.name)
        if match and (int(match[1]) == os.getpid() or not _is_alive(int(match[1]))):
            shutil.rmtree(path, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _write_checksums(folder: Path) -> None:
    checksums = {
        path.relative_to(folder).as_posix(): {
            "sha256": checksum(path),
            "size": path.stat().st_size,
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    write_json(folder / CHECKSUMS_NAME, checksums)


def _flush(path: Path) -> None:
    """Have the disk hold a file, or a folder's list of names, before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
