"""What the tools ask of the repository: what its distributions share, and where its links lead."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Container
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def core_project(tree: Path) -> dict[str, Any]:
    """The core's ``[project]``, from which every distribution takes what they share."""
    document = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))
    project: dict[str, Any] = document["project"]
    return project


def with_absolute_links(
    text: str, folder: Path, tree: Path, source: str, pages: Container[str] = ()
) -> str:
    """A document whose links to files of the repository name them at the code host.

    Links within the page, to other hosts and in code stay as they are.

    :param folder: the document's, to which its links are relative.
    :param source: the address of the repository.
    :param pages: files to link to where they lie, by their paths in the repository.
    """

    def linked(match: re.Match[str]) -> str:
        target = match["target"]  # nothing: the match is code
        if not target or re.match(r"\w+:|#", target):
            return match[0]
        path, mark, anchor = target.partition("#")
        file = Path(os.path.relpath(folder / path, tree)).as_posix()
        for page in (file, f"{file}/README.md"):
            if page in pages:
                relative = Path(os.path.relpath(tree / page, folder)).as_posix()
                return f"]({relative}{mark}{anchor})"
        kind = "tree" if (tree / file).is_dir() else "raw" if file.endswith(".png") else "blob"
        return f"]({source}/{kind}/main/{file}{mark}{anchor})"

    code = r"^```.*?^```$|`[^`\n]*`"
    return re.sub(rf"{code}|\]\((?P<target>[^)\s]+)\)", linked, text, flags=re.M | re.S)
