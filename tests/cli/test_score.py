"""``xlm score``: a log-probability before each line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

import xlm_plugins

Piped = Callable[..., tuple[int, bytes, str]]
TEXT = "In the beginning\n\nGod said,\tLet there be light\nÀ Dieu\n"
TEXTS = TEXT.split("\n")[:-1]


@pytest.mark.parametrize("run", ["tiny_run", "clm_run"])
def test_a_score_and_a_tab_precede_each_line(
    tiny_run: Path, clm_run: Path, piped: Piped, monkeypatch: pytest.MonkeyPatch, run: str
) -> None:
    path = {"tiny_run": tiny_run, "clm_run": clm_run}[run]
    expected = xlm_plugins.load(path).score(TEXTS, "en")
    monkeypatch.setattr("xlm_plugins.cli.pipes.LINES_AT_ONCE", 3)
    status, out, err = piped("score", path, "--language=en", content=TEXT)
    assert (status, err) == (0, "")
    lines = [line.split("\t", 1) for line in out.decode().split("\n")[:-1]]
    assert [text for _, text in lines] == TEXTS
    assert [float(score) for score, _ in lines] == pytest.approx(expected, abs=1e-3)
    empty = float(lines[1][0])
    assert (empty == 0) == (run == "tiny_run")  # a causal model says how probable an end is


def test_json_lines_hold_every_token(clm_run: Path, piped: Piped) -> None:
    status, out, _ = piped("score", clm_run, "--language=en", "--json-lines", content=TEXT)
    assert status == 0
    trees = [json.loads(line) for line in out.splitlines()]
    assert [tree["text"] for tree in trees] == TEXTS
    for tree, found in zip(trees, xlm_plugins.load(clm_run).scores(TEXTS, "en"), strict=True):
        assert [item["token"] for item in tree["tokens"]] == list(found.tokens)
        assert tree["n_tokens"] == len(found.tokens)
        assert sum(item["log_probability"] for item in tree["tokens"]) == pytest.approx(
            tree["score"]
        )


def test_long_lines_are_cut_and_counted_or_refused(clm_run: Path, piped: Piped) -> None:
    content = "God\n" + "God " * 600 + "\n"
    status, out, err = piped("score", clm_run, "--language=en", content=content)
    assert (status, out.count(b"\n")) == (0, 2)
    assert err.startswith("1 of 2 lines were cut to 510 tokens")
    status, out, err = piped("score", clm_run, "--language=en", "--strict", content=content)
    assert (status, out) == (2, b"")
    assert "standard input, line 2: " in err


def test_progress_shows_on_a_terminal(
    tiny_run: Path, piped: Piped, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Console, "is_terminal", True)
    assert "4 lines scored" in piped("score", tiny_run, "--language=en", content=TEXT)[2]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--language=xx"], "--language with one of en, fr"),
        ([], "--language with one of en, fr"),
        (["--language=en", "--kind=causal"], "no causal score: it was trained on mlm, tlm"),
        (["--language=en", "--kind=best"], "--kind"),
    ],
)
def test_what_is_refused(tiny_run: Path, piped: Piped, arguments: list[str], told: str) -> None:
    status, out, err = piped("score", tiny_run, *arguments, content=TEXT)
    assert (status, out) == (2, b"")
    assert told in err
    assert "Traceback" not in err
