"""Files that are written as a whole, and checksums of files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from xlm_plugins.core.errors import BundleError


def write_text(path: Path, text: str) -> None:
    """Write a file in UTF-8 that, at any moment, is there as a whole or as it was before."""
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_text(text, encoding="utf-8")
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def write_json(path: Path, tree: Any) -> None:
    """Write JSON, indented for people, as `write_text` does."""
    write_text(path, json.dumps(tree, indent=1) + "\n")


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_tree(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    :raises BundleError: it is missing or damaged.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
    if not isinstance(tree, dict):
        raise BundleError(f"{path} holds no JSON object")
    return tree
