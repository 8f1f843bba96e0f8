"""``xlm embed``: lines in, an .npy file or JSON lines out, and what it refuses."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import xlm_plugins

Piped = Callable[..., tuple[int, bytes, str]]
TEXT = "In the beginning\n\nGod créa\r\nJesus said to him, Follow me.\nGod\n"
TEXTS = [line.rstrip("\r") for line in TEXT.split("\n")[:-1]]


def test_every_line_gives_a_row_in_order(
    tiny_run: Path, piped: Piped, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = xlm_plugins.load(tiny_run)
    monkeypatch.setattr("xlm_plugins.cli.pipes.LINES_AT_ONCE", 2)
    for options, flags in (
        ({}, []),
        ({"layer": 1}, ["--layer=1"]),
        ({"layer": -2, "pool": "first"}, ["--layer=-2", "--pool=first", "--batch-tokens=9"]),
    ):
        status, out, err = piped("embed", tiny_run, "--language=fr", *flags, content=TEXT)
        assert (status, err) == (0, "")
        found = np.load(io.BytesIO(out), allow_pickle=False)
        assert (found.dtype, found.flags.c_contiguous) == (np.dtype("<f4"), True)
        np.testing.assert_allclose(found, model.embed(TEXTS, "fr", **options), atol=1e-5)


def test_json_lines_hold_the_same_numbers(tiny_run: Path, piped: Piped) -> None:
    _, out, _ = piped("embed", tiny_run, "--language=en", content=TEXT)
    status, lines, _ = piped("embed", tiny_run, "--language=en", "--json-lines", content=TEXT)
    assert status == 0
    found = np.array([json.loads(line) for line in lines.splitlines()], np.float32)
    np.testing.assert_array_equal(found, np.load(io.BytesIO(out)))


def test_no_lines_give_no_rows(tiny_run: Path, piped: Piped) -> None:
    status, out, _ = piped("embed", tiny_run, "--language=en")
    assert (status, np.load(io.BytesIO(out)).shape) == (0, (0, 16))
    assert piped("embed", tiny_run, "--language=en", "--json-lines") == (0, b"", "")


def test_a_terminal_gets_no_binary_file(
    tiny_run: Path, piped: Piped, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    status, out, err = piped("embed", tiny_run, "--language=en", content=TEXT)
    assert (status, out) == (2, b"")
    assert "cannot be shown on a terminal" in err
    assert "> out.npy, or --json-lines" in err
    assert piped("embed", tiny_run, "--language=en", "--json-lines", content=TEXT)[0] == 0


def test_long_lines_are_cut_and_counted_or_refused(tiny_run: Path, piped: Piped) -> None:
    content = "God\n" + "God " * 600 + "\n"
    status, out, err = piped("embed", tiny_run, "--language=en", content=content)
    assert (status, len(np.load(io.BytesIO(out)))) == (0, 2)
    assert err.startswith("1 of 2 lines were cut to 510 tokens")
    status, out, err = piped("embed", tiny_run, "--language=en", "--strict", content=content)
    assert (status, out) == (2, b"")
    assert "standard input, line 2: " in err


def test_progress_shows_on_a_terminal(
    tiny_run: Path, piped: Piped, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Console, "is_terminal", True)
    status, out, err = piped("embed", tiny_run, "--language=en", content=TEXT)
    assert (status, len(np.load(io.BytesIO(out)))) == (0, 5)
    assert "5 lines embedded" in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--language=xx"], "--language with one of en, fr"),
        ([], "--language with one of en, fr"),
        (["--language=en", "--layer=3"], "the model has no layer 3"),
        (["--language=en", "--pool=last"], "--pool"),
        (["--language=en", "--batch-tokens=0"], "--batch-tokens"),
    ],
)
def test_what_is_refused(tiny_run: Path, piped: Piped, arguments: list[str], told: str) -> None:
    status, out, err = piped("embed", tiny_run, *arguments, content=TEXT)
    assert (status, out) == (2, b"")
    assert told in err
    assert "Traceback" not in err


def test_bytes_that_are_not_utf8_leave_nothing_half_written(tiny_run: Path, piped: Piped) -> None:
    content = "God\n" * 3 + "été\n"
    given = (tiny_run, "--language=en")
    status, out, err = piped("embed", *given, content=content.encode("latin-1"))
    assert (status, out) == (2, b"")
    assert "standard input, line 4" in err
    status, out, _ = piped("embed", *given, "--errors=replace", content=content.encode("latin-1"))
    assert (status, len(np.load(io.BytesIO(out)))) == (0, 4)
