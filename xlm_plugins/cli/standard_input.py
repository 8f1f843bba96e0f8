"""Text from standard input, for commands that stand in a pipe."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator

from xlm_plugins.core.errors import DataError

_BYTE_ORDER_MARK = "\ufeff"


def input_lines(n_together: int, errors: str = "strict") -> Iterator[list[str]]:
    """The lines of standard input without their ends, many at once; one at a time of a terminal.

    :param errors: ``strict`` refuses bytes that are not UTF-8, ``replace`` puts U+FFFD there.
    :raises DataError: not UTF-8; no line of its lot has been given then.
    """
    lines = _decoded_lines(errors)
    while lot := list(itertools.islice(lines, 1 if sys.stdin.isatty() else n_together)):
        yield lot


def _decoded_lines(errors: str) -> Iterator[str]:
    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            text = line.rstrip(b"\r\n").decode("utf-8", errors)
        except UnicodeDecodeError as error:
            raise DataError(
                f"standard input, line {number}: byte {error.start + 1} of the line is "
                f"0x{line[error.start]:02x}, which is not UTF-8 there",
                expected="text in UTF-8",
                remedy="convert it (iconv -f latin1 -t utf-8), or put the replacement character "
                "there: --errors replace",
            ) from error
        yield text.removeprefix(_BYTE_ORDER_MARK) if number == 1 else text
