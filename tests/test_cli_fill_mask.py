"""``xlm fill-mask``: texts as arguments or by pipe, for people or as JSON."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import pytest

from xlm_plugins.cli.main import main

TEXT = "Jesus said to <mask>, Follow me."


def test_guesses_stand_under_each_text(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{TEXT}\nÀ <mask> <mask>\n"))
    assert main(["fill-mask", str(tiny_run), "--language=en", "--json"]) == 0
    trees = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [tree["text"] for tree in trees] == [TEXT, "À <mask> <mask>"]
    assert [len(tree["masks"]) for tree in trees] == [1, 2]
    guesses = trees[0]["masks"][0]
    assert len(guesses) == 5
    assert guesses[0].keys() == {"token", "probability", "text"}
    assert 0 < guesses[-1]["probability"] <= guesses[0]["probability"] < 1


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
