"""Sources: which text files make up which stream.

A source is either a folder with files named::

    train.en.txt                    text of one language, one sentence per line
    train.en-fr.en.txt              the English side of a parallel text ...
    train.en-fr.fr.txt              ... and its French side, line by line

plain or compressed (``.txt.bz2``, ``.txt.gz``, ``.txt.xz``, ``.txt.zst``), the languages of a
pair in either order; or a TOML file that lists files, by paths relative to itself::

    [[text]]
    split = "train"
    language = "en"
    files = ["news.txt.xz", "books.txt"]

    [[parallel]]
    split = "train"
    files.en = ["talks-*.en.txt"]
    files.fr = ["talks-*.fr.txt"]

Patterns stand for all files that fit, sorted.  A file that is neither ``.txt`` nor ends in its
language (``talks.en-fr.en``) needs ``format = "lines"`` in its entry.
"""

from __future__ import annotations

import glob
import re
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlm_plugins.core.errors import DataError
from xlm_plugins.core.text_files import COMPRESSED
from xlm_plugins.data.dataset.health import Unused
from xlm_plugins.data.dataset.manifest import TRAIN
from xlm_plugins.data.prepare.formats import CONTAINERS, CONVERT, PLAIN, ending
from xlm_plugins.data.prepare.unused import files_below, grouped

_CODE = r"[A-Za-z0-9_]+"
_COMPRESSED = f"(?:{'|'.join(map(re.escape, COMPRESSED))})?"
_NAME = re.compile(
    rf"(?P<split>{_CODE})\.(?:(?P<language>{_CODE})"
    rf"|(?P<pair>{_CODE}-{_CODE})\.(?P<side>{_CODE}))\.txt{_COMPRESSED}"
)
_LOOKS_LIKE_TEXT = re.compile(rf"[^.]+\..+\.txt{_COMPRESSED}")
_NAMES = "SPLIT.LANG.txt or SPLIT.L1-L2.LANG.txt"
_FORM = f"{_NAMES}, plain or {', '.join(COMPRESSED)}"
LINES = "lines"
"""The ``format`` of an entry whose files hold plain lines, whatever their names end in."""


@dataclass(frozen=True)
class StreamSource:
    """The files of one stream.

    :param languages: one code, or the two codes of a pair in sorted order.
    :param files: for each language its files, read one after the other.
    """

    split: str
    languages: tuple[str, ...]
    files: tuple[tuple[Path, ...], ...]

    @property
    def name(self) -> str:
        """``train.en`` or ``train.en-fr``, like `Stream.name`."""
        return f"{self.split}.{'-'.join(self.languages)}"


@dataclass(frozen=True)
class Sources:
    """All streams of a source, training text first.

    :param origin: the folder or TOML file, for error messages.
    :param unused: the folder's other files, and why they are not used.
    """

    origin: Path
    streams: tuple[StreamSource, ...]
    unused: tuple[Unused, ...] = ()

    @classmethod
    def open(cls, origin: Path) -> Sources:
        """Read a folder's file names, or a TOML file.

        :raises DataError: there is no such source, it has no text, or a name or entry is invalid.
        """
        unused: tuple[Unused, ...] = ()
        if origin.is_dir():
            streams = _of_folder(origin)
            unused = _unused(origin, streams)
        elif origin.is_file():
            streams = _of_toml(origin)
        else:
            raise DataError(
                f"the source {origin} does not exist",
                expected=f"a folder with files named {_FORM}, or a TOML file that lists them",
            )
        if not streams:
            left = [group.finding() for group in unused]
            raise DataError(
                "\n".join([f"{origin} contains no text", *(found.problem for found in left)]),
                expected=f"files named {_FORM}",
                remedy=next((found.hint for found in left if found.hint), ""),
            )
        order = {TRAIN: 0, "valid": 1, "test": 2}
        streams.sort(key=lambda s: (order.get(s.split, 3), s.split, len(s.languages), s.languages))
        return cls(origin, tuple(streams), unused)

    @property
    def languages(self) -> tuple[str, ...]:
        return tuple(sorted({code for stream in self.streams for code in stream.languages}))

    def restricted(self, languages: Collection[str]) -> Sources:
        """Only the streams whose languages are all among these.

        :raises DataError: the source has no text in a language.
        """
        unknown = sorted(set(languages) - set(self.languages))
        if unknown:
            raise DataError(
                f"{self.origin} has no text in {', '.join(unknown)}",
                expected=f"languages among {', '.join(self.languages)}",
            )
        kept = tuple(s for s in self.streams if set(s.languages) <= set(languages))
        left = {path for s in self.streams if s not in kept for side in s.files for path in side}
        reason = f"not wholly in the languages chosen, {', '.join(sorted(languages))}"
        dropped = sorted(path.name for path in left)
        unused = (*self.unused, Unused(reason, "", dropped)) if dropped else self.unused
        return Sources(self.origin, kept, unused)


def _of_folder(folder: Path) -> list[StreamSource]:
    sides: dict[tuple[str, tuple[str, ...]], dict[str, list[Path]]] = {}
    for path in sorted(folder.iterdir()):
        match = _NAME.fullmatch(path.name)
        if not match:
            if _LOOKS_LIKE_TEXT.fullmatch(path.name):
                raise DataError(f"the file name {path} is invalid", expected=_FORM)
            continue
        languages = tuple(sorted((match["pair"] or match["language"]).split("-")))
        side = match["side"] or match["language"]
        if side not in languages or len(set(languages)) < len(languages):
            raise DataError(
                f"the file name {path} is invalid: its language is not one of the pair's two"
            )
        files = sides.setdefault((match["split"], languages), {}).setdefault(side, [])
        files.append(path)
        if len(files) > 1:
            raise DataError(
                f"{files[0].name} and {path.name} in {folder} are both the {side} of one stream",
                remedy="remove one, or list both in a TOML file (`xlm prepare --help` shows how)",
            )
    return [_stream(split, codes, files, folder) for (split, codes), files in sides.items()]


def _unused(folder: Path, streams: list[StreamSource]) -> tuple[Unused, ...]:
    """The files of a folder that are in none of these streams, and why."""
    used = {path for stream in streams for side in stream.files for path in side}
    others = (path for path in files_below(folder) if path not in used)
    return grouped((path.relative_to(folder) for path in others), _NAMES)


def _stream(
    split: str, languages: tuple[str, ...], files: dict[str, list[Path]], origin: Path
) -> StreamSource:
    missing = [code for code in languages if not files.get(code)]
    if missing:
        have = ", ".join(str(path) for paths in files.values() for path in paths)
        raise DataError(
            f"{split}.{'-'.join(languages)} in {origin} has no {missing[0]} side, only {have}",
            expected="a file for each language of the pair",
        )
    return StreamSource(split, languages, tuple(tuple(files[code]) for code in languages))


def _of_toml(path: Path) -> list[StreamSource]:
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
        streams = [_of_entry(entry, kind, path) for kind in tree for entry in tree[kind]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} does not list sources: {type(error).__name__}: {error}",
            expected="[[text]] with split, language and files, or [[parallel]] with split, "
            "files.L1 and files.L2; files are lists of paths",
        ) from error
    names = [stream.name for stream in streams]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"{path} lists {twice[0]} twice", remedy="list all of its files in one entry"
        )
    return streams


def _of_entry(entry: dict[str, Any], kind: str, path: Path) -> StreamSource:
    if kind not in ("text", "parallel"):
        raise ValueError(f"[[{kind}]] is neither [[text]] nor [[parallel]]")
    expected = {"split", "files"} | ({"language"} if kind == "text" else set())
    if set(entry) - {"format"} != expected:
        raise ValueError(f"[[{kind}]] has {', '.join(entry)} instead of {', '.join(expected)}")
    if entry.get("format", LINES) != LINES:
        raise ValueError(f"format = {entry['format']!r} is not {LINES!r}")
    files = {entry["language"]: entry["files"]} if kind == "text" else entry["files"]
    if kind == "parallel" and len(files) != 2:
        raise ValueError(f"[[parallel]] needs the files of two languages, not of {len(files)}")
    for name in (entry["split"], *files):
        if not re.fullmatch(_CODE, name):
            raise ValueError(f"{name!r} is not made of letters, digits and _")
    is_declared = "format" in entry
    resolved = {code: _listed(path, names, code, is_declared) for code, names in files.items()}
    return _stream(entry["split"], tuple(sorted(files)), resolved, path)


def _listed(toml: Path, names: list[str], language: str, is_declared: bool) -> list[Path]:
    """The files of one language in an entry, with patterns replaced by the files that fit.

    :param is_declared: the entry says that they are plain lines, whatever their names say.
    """
    found: list[Path] = []
    for name in names:
        path = toml.parent / name
        if path.is_file():
            found.append(path)
            continue
        if not glob.has_magic(name):
            raise DataError(f"{toml} lists {name}, but there is no file {path}")
        fitting = sorted(glob.glob(name, root_dir=toml.parent, recursive=True))
        files = [path for path in map(toml.parent.joinpath, fitting) if path.is_file()]
        if not files:
            raise DataError(f"{toml} lists {name}, and no file in {toml.parent} fits that pattern")
        found += [path for path in files if path not in found]
    if not is_declared:
        for path in found:
            _check_ending(toml, path, language)
    return found


def _check_ending(toml: Path, path: Path, language: str) -> None:
    """Refuse a file that does not look like plain lines."""
    last = ending(path)
    if last in (PLAIN, f".{language.lower()}"):
        return
    compressed = ", ".join(COMPRESSED)
    raise DataError(
        f"{toml} lists {path}, which is {CONTAINERS[last]}, not plain lines"
        if last in CONTAINERS
        else f"{toml} lists {path}, and {last or 'a name without ending'} does not say what it is",
        expected=f"{PLAIN} or .{language}, alone or before {compressed}",
        remedy=CONVERT
        if last in CONTAINERS
        else f'if it has one sentence per line, add format = "{LINES}" to the entry',
    )
