"""Reading tables: TSV, CSV and JSON lines, plain or compressed."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from textwrap import shorten
from typing import IO

from xlm_plugins.core.errors import DataError
from xlm_plugins.core.text_files import COMPRESSED, UNREADABLE, open_decompressed


@dataclass(frozen=True)
class Table:
    """The columns of a file.

    :param columns: by name; one text per row.
    :param lines: the line on which each row begins, from 1.
    """

    file: Path
    columns: Mapping[str, Sequence[str]]
    lines: Sequence[int]

    def column(self, name: str) -> Sequence[str]:
        """A column by name.

        :raises DataError: there is none; the error lists the columns.
        """
        if name not in self.columns:
            # A file without column names has a row instead, and a text may be long.
            known = [shorten(known, 60, placeholder=" ...") for known in self.columns]
            raise DataError(
                f"{self.file} has no column {name!r}", expected=f"one of {', '.join(known)}"
            )
        return self.columns[name]


def read_table(file: Path, names: Sequence[str] | None = None) -> Table:
    """Read a whole table; the file's name says its format: ``.tsv``, ``.csv``, ``.jsonl``.

    TSV has no quoting, as in the files of benchmarks: a quotation mark is part of a text.  CSV may
    have quoted fields, even over several lines.

    :param names: the columns of a TSV or CSV file whose first line does not name them.
    :raises DataError: no such file, another format, or a malformed row (with file and line).
    """
    stem = file.with_suffix("") if file.suffix in COMPRESSED else file
    readers = {".tsv": _tsv, ".txt": _tsv, ".csv": _csv, ".jsonl": _json_lines}
    if stem.suffix not in readers:
        raise DataError(
            f"the name of {file} does not tell its format",
            expected=f"a name that ends in {', '.join(readers)}, with or without "
            f"{', '.join(COMPRESSED)}",
        )
    try:
        # Files of some benchmarks begin with a byte order mark, which is not part of a name.
        with TextIOWrapper(open_decompressed(file), encoding="utf-8-sig", newline="") as text:
            return _table(file, readers[stem.suffix](text, file), names)
    except FileNotFoundError as error:
        raise DataError(f"there is no file {file}") from error
    except (*UNREADABLE, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {error}", expected="a table in UTF-8") from error


_Rows = Iterator[tuple[int, Sequence[str] | Mapping[str, str]]]


def _tsv(text: IO[str], file: Path) -> _Rows:
    # Not splitlines: U+2028 and the like are part of a text.
    for number, line in enumerate(text.read().replace("\r\n", "\n").split("\n"), start=1):
        if line:
            yield number, line.split("\t")


def _csv(text: IO[str], file: Path) -> _Rows:
    reader = csv.reader(text, strict=True)
    begin = 1
    try:
        for row in reader:
            if row:
                yield begin, row
            begin = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num}: {error}", expected="CSV") from error


def _json_lines(text: IO[str], file: Path) -> _Rows:
    for number, line in enumerate(text, start=1):
        if line.strip():
            try:
                tree = json.loads(line)
            except ValueError as error:
                raise DataError(f"{file}, line {number}: {error}", expected="JSON") from error
            if not isinstance(tree, dict):
                raise DataError(
                    f"{file}, line {number}: not an object", expected='{"column": value}'
                )
            yield number, {key: value if isinstance(value, str) else json.dumps(value)
                           for key, value in tree.items()}  # fmt: skip


def _table(file: Path, rows: _Rows, names: Sequence[str] | None) -> Table:
    first = next(rows, None)
    if first is None:
        raise DataError(f"{file} is empty", expected="a line of column names, and one line per row")
    if isinstance(first[1], Mapping):
        names = list(first[1])
        remaining: _Rows = itertools.chain([first], rows)
    elif names is None:
        names, remaining = list(first[1]), rows
    else:
        remaining = itertools.chain([first], rows)
    if twice := [name for name in names if list(names).count(name) > 1]:
        raise DataError(
            f"{file}: two columns are called {shorten(twice[0], 60, placeholder=' ...')!r}",
            expected="a different name for each column, in the first line",
        )
    lines, values = [], []
    for line, row in remaining:
        lines.append(line)
        values.append(_fields(file, line, row, names))
    columns = list(zip(*values, strict=True)) or [()] * len(names)
    return Table(file, dict(zip(names, columns, strict=True)), lines)


def _fields(
    file: Path, line: int, row: Sequence[str] | Mapping[str, str], names: Sequence[str]
) -> Sequence[str]:
    if isinstance(row, Mapping):
        missing = [name for name in names if name not in row]
        if missing:
            raise DataError(
                f"{file}, line {line}: missing keys: {', '.join(missing)}",
                expected=f"the keys of the first line: {', '.join(names)}",
            )
        return [row[name] for name in names]
    if len(row) != len(names):
        raise DataError(
            f"{file}, line {line}: {len(row)} fields",
            expected=f"{len(names)}: {', '.join(names)}",
        )
    return row
