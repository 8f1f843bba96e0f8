"""``xlm fill-mask``: texts as arguments or from a pipe, output as text or JSON."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from xlm_plugins.cli.main import main

TEXT = "Jesus said to <mask>, Follow me."


def test_candidates_follow_each_text(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fill-mask", str(tiny_run), "--language=en", "--top=3", TEXT, "A <mask>"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [lines[0], lines[4]] == [TEXT, "A <mask>"]
    assert len(lines) == 8
    for line in lines[1:4]:
        assert re.fullmatch(r"  +\d+\.\d%  Jesus said to ?.*, Follow me\.", line)


def test_several_masks_are_numbered(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["fill-mask", str(tiny_run), "--language=fr", "--top=1", "le <mask> de <mask>"]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1::2] == ["  mask 1", "  mask 2"]
    assert len(lines) == 5


def test_json_from_standard_input(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = f"{TEXT}\nÀ <mask> <mask>\n".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert main(["fill-mask", str(tiny_run), "--language=en", "--json"]) == 0
    trees = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [tree["text"] for tree in trees] == [TEXT, "À <mask> <mask>"]
    assert [len(tree["masks"]) for tree in trees] == [1, 2]
    guesses = trees[0]["masks"][0]
    assert len(guesses) == 5
    assert guesses[0].keys() == {"token", "probability", "text"}
    assert 0 < guesses[-1]["probability"] <= guesses[0]["probability"] < 1


def test_many_lines_are_read_in_chunks(
    tiny_run: Path, piped: Callable[..., tuple[int, bytes, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [TEXT, "<mask>", "À <mask> <mask>", "God said <mask> and <mask> it", TEXT]
    content = "".join(f"{text}\n" for text in texts)
    given = (tiny_run, "--language=en", "--batch-tokens=30")
    whole = piped("fill-mask", *given, content=content)
    assert whole[0] == 0
    alone = [piped("fill-mask", *given, text)[1] for text in texts]
    assert whole[1] == b"".join(alone)
    monkeypatch.setattr("xlm_plugins.cli.pipes.LINES_AT_ONCE", 2)
    monkeypatch.setattr(Console, "is_terminal", True)
    _, out, err = piped("fill-mask", *given, content=content)
    assert out == whole[1]
    assert "5 lines filled" in err
    assert b"<unk>" not in out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--language=xx", TEXT], "--language with one of en, fr"),
        ([TEXT], "--language with one of en, fr"),
        (["--language=en", "no mask"], "has no <mask>"),
        (["--language=en", "--top=0", TEXT], "--top"),
        (["--language=en", "<mask> " * 600], "at most 510"),
    ],
)
def test_what_cannot_be_filled(
    tiny_run: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert main(["fill-mask", str(tiny_run), *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err
