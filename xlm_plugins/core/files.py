"""Files that are written as a whole, and checksums of files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


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
