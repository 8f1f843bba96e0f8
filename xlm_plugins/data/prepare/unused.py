"""Files of a source that no stream uses, and why: nothing is ignored silently."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

from xlm_plugins.data.dataset.health import Unused
from xlm_plugins.data.prepare.formats import CONTAINERS, CONVERT, ending

_ABOUT = {"README", "LICENSE", "LICENCE", "COPYING", "NOTICE", "CITATION"}


def files_below(folder: Path) -> Iterator[Path]:
    """All files of a folder and its sub-folders, sorted; a hidden folder instead of its files."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink() and not path.name.startswith("."):
            yield from files_below(path)
        else:
            yield path


def grouped(files: Iterable[PurePath], form: str) -> tuple[Unused, ...]:
    """Say for each file why its name keeps it from being used.

    :param files: relative to the source folder.
    :param form: the names that are used.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for path in files:
        groups.setdefault(_why(path, form), []).append(path.as_posix())
    return tuple(Unused(reason, hint, names) for (reason, hint), names in groups.items())


def _why(path: PurePath, form: str) -> tuple[str, str]:
    """The reason and the hint."""
    if path.name.startswith("."):
        return "hidden", ""
    if path.stem.upper() in _ABOUT:
        return "about the text", ""
    what = CONTAINERS.get(ending(path))
    if what is not None:
        return f"{ending(path)} is {what}, not plain lines", CONVERT
    listed = "list them in a TOML file (`xlm prepare --help` shows how)"
    if len(path.parts) > 1:
        return "in a sub-folder", f"move them up, named {form}, or {listed}"
    return f"not named {form}", f"rename them, or {listed}"
