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
    files.en = ["talks.en.txt"]
    files.fr = ["talks.fr.txt"]
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlm_plugins.core.errors import DataError
from xlm_plugins.core.text_files import COMPRESSED
from xlm_plugins.data.dataset.manifest import TRAIN

_CODE = r"[A-Za-z0-9_]+"
_COMPRESSED = f"(?:{'|'.join(map(re.escape, COMPRESSED))})?"
_NAME = re.compile(
    rf"(?P<split>{_CODE})\.(?:(?P<language>{_CODE})"
    rf"|(?P<pair>{_CODE}-{_CODE})\.(?P<side>{_CODE}))\.txt{_COMPRESSED}"
)
_LOOKS_LIKE_TEXT = re.compile(rf"[^.]+\..+\.txt{_COMPRESSED}")
_FORM = f"SPLIT.LANG.txt or SPLIT.L1-L2.LANG.txt, plain or {', '.join(COMPRESSED)}"


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
    """

    origin: Path
    streams: tuple[StreamSource, ...]

    @classmethod
    def open(cls, origin: Path) -> Sources:
        """Read a folder's file names, or a TOML file.

        :raises DataError: there is no such source, it has no text, or a name or entry is invalid.
        """
        if origin.is_dir():
            streams = _of_folder(origin)
        elif origin.is_file():
            streams = _of_toml(origin)
        else:
            raise DataError(
                f"the source {origin} does not exist",
                expected=f"a folder with files named {_FORM}, or a TOML file that lists them",
            )
        if not streams:
            raise DataError(f"{origin} contains no text", expected=f"files named {_FORM}")
        order = {TRAIN: 0, "valid": 1, "test": 2}
        streams.sort(key=lambda s: (order.get(s.split, 3), s.split, len(s.languages), s.languages))
        return cls(origin, tuple(streams))

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
        return Sources(self.origin, kept)


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
    if set(entry) != expected:
        raise ValueError(f"[[{kind}]] has {', '.join(entry)} instead of {', '.join(expected)}")
    files = {entry["language"]: entry["files"]} if kind == "text" else entry["files"]
    if kind == "parallel" and len(files) != 2:
        raise ValueError(f"[[parallel]] needs the files of two languages, not of {len(files)}")
    for name in (entry["split"], *files):
        if not re.fullmatch(_CODE, name):
            raise ValueError(f"{name!r} is not made of letters, digits and _")
    resolved = {code: [_listed(path, name) for name in names] for code, names in files.items()}
    return _stream(entry["split"], tuple(sorted(files)), resolved, path)


def _listed(toml: Path, name: str) -> Path:
    path = toml.parent / name
    if not path.is_file():
        raise DataError(f"{toml} lists {name}, but there is no file {path}")
    return path
