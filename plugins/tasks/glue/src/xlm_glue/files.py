"""Reading a file in which some rows are split over two lines."""

from __future__ import annotations

import logging
from pathlib import Path

from xlm_plugins import Table, read_lines

LOG = logging.getLogger("xlm_plugins").getChild("glue")


def read_whole_rows(file: Path) -> Table:
    """Read a TSV file, less the lines with more or fewer fields than the first one has.

    Some questions of QQP contain a line end.  Logs how many lines are left out.

    :raises DataError: as `read_lines`.
    """
    first, *lines = list(read_lines(file)) or [""]
    names = first.split("\t")
    rows = [(number, line.split("\t")) for number, line in enumerate(lines, start=2) if line]
    whole = [(number, row) for number, row in rows if len(row) == len(names)]
    if len(whole) < len(rows):
        LOG.warning("%s: %d lines are no whole rows, left out", file, len(rows) - len(whole))
    columns = zip(*(row for _, row in whole), strict=True) if whole else [()] * len(names)
    return Table(file, dict(zip(names, columns, strict=True)), [number for number, _ in whole])
