"""docs/first-hour.md: its commands are those of this version."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from xlm_plugins.cli.main import main

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "first-hour.md").read_text(encoding="utf-8").replace("\\\n", " ")
COMMANDS = re.findall(r"^\$ xlm (.*)$", TEXT, re.M)


def test_there_are_commands_from_text_to_export() -> None:
    names = [command.split()[0] for command in COMMANDS]
    assert names == ["prepare", "train", "train", "evaluate", "plot", "describe", "export"]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_fails_only_for_what_an_empty_folder_lacks(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = shlex.split(command)
    assert main(arguments) == 2
    told = capsys.readouterr().err.splitlines()[0]
    assert re.search(r"\b(text|my-data|my-run)\b", told), told
    assert list(tmp_path.iterdir()) == []
