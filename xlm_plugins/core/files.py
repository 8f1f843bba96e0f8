"""Files and folders written whole or not at all; JSON; checksums.

What is being written has a hidden name beside its own: ``.NAME.partial``.  Renaming it is the
last step, so a reader finds the old content or the new, and never a part.  An error removes the
unfinished part; a kill leaves it, and the next write of the same name starts it afresh.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xlm_plugins.core.errors import BundleError
from xlm_plugins.core.messages import LOG


@contextmanager
def whole_file(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Yield a temporary path to write to, which replaces ``path`` when the block succeeds.

    :param shared: several processes may write it at once; each then has a hidden name of its own.
    """
    partial = _partial(path, shared)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Yield an empty temporary folder, which is renamed to ``path`` when the block succeeds.

    Missing parents are created.  A folder that stands at ``path`` must be empty, or be moved away
    by the end of the block.

    :param shared: several processes may write it at once; each then has a hidden name of its own.
    """
    partial = _partial(path, shared)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _partial(path: Path, shared: bool) -> Path:
    process = f".{os.getpid()}" if shared else ""
    return path.with_name(f".{path.name}{process}.partial")


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, tree: Any) -> None:
    """Write indented JSON, whole or not at all."""
    write_text(path, json.dumps(tree, indent=1) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    :raises BundleError: the file is missing or damaged.
    """
    try:
        LOG.debug("reading %s", path)
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
    if not isinstance(tree, dict):
        raise BundleError(f"{path} holds no JSON object")
    return tree


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
