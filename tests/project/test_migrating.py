"""docs/migrating.md: every option that it names is one of the command that it names with it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from xlm_plugins.cli.main import main

PAGE = Path(__file__).resolve().parents[2] / "docs" / "migrating.md"
TEXT = PAGE.read_text(encoding="utf-8")
XLM_FLAGS = Path(__file__).with_name("xlm-flags.md").read_text(encoding="utf-8")
OBJECTIVES = ("clm", "mlm", "tlm", "pc", "ae", "mt", "bt")
SELECTED = {
    "train": [[f"--objective={name}" for name in OBJECTIVES] + ["--layer", "pkm"]],
    "finetune": [["xnli"], ["glue"]],
    "prepare": [["--tokenizer", "sentencepiece"], ["--tokenizer", "fastbpe"]],
}
"""Command -> the selections whose options the page may name."""

FLAG = re.compile(r"(?<![\w-])--[a-z][\w.-]*")
ROW = re.compile(r"^\| `--(\w+)` \| (.*?) \|", re.M)


def blocks() -> list[str]:
    """The commands in the page's blocks, each on one line."""
    text = "".join(re.findall(r"(?:^    .*\n)+", TEXT, re.M)).replace("\\\n", " ")
    return [" ".join(line.split()) for line in text.splitlines()]


OURS = [command for command in blocks() if command.startswith("xlm ")]


def named() -> Iterator[tuple[str, str]]:
    """(command, option) of every option of ours in tables and sentences; (command, --help) else.

    A span ``xlm COMMAND ...`` names its own command; any other option belongs to the command in
    the section's heading, and before the first such heading to ``xlm train``.
    """
    for section in re.split(r"^(?=##)", re.sub(r"^    .*$", "", TEXT, flags=re.M), flags=re.M):
        heading = re.match(r"##.*`xlm (\w+)", section)
        ours = re.sub(r"^\| `--.*?\|", "|", section, flags=re.M)
        for span in re.findall(r"`([^`]+)`", ours):
            own = re.match(r"xlm((?: [a-z][a-z-]*)*)(?![\w-])", span)
            command = own[1].strip() if own else heading[1] if heading else "train"
            options = FLAG.findall(span) or (["--help"] if own else [])
            yield from ((command, option) for option in options)


@pytest.fixture
def options_of(capsys: pytest.CaptureFixture[str]) -> Callable[[str], set[str]]:
    """The options that a command's help shows, with all that the page selects."""

    @cache
    def options_of(command: str) -> set[str]:
        shown = ""
        flag = "--help-all" if command in ("train", "finetune") else "--help"
        for selection in SELECTED.get(command, [[]]):
            assert main([*command.split(), *selection, flag]) == 0, command
            shown += capsys.readouterr().out
        return set(FLAG.findall(shown))

    return options_of


def test_every_option_exists_where_it_is_named(options_of: Callable[[str], set[str]]) -> None:
    found = set(named())
    assert ("finetune", "--class-weights") in found
    assert ("translate", "--to") in found
    assert ("", "--debug") in found
    assert ("export hf", "--help") in found
    assert [pair for pair in sorted(found) if pair[1] not in options_of(pair[0])] == []


@pytest.mark.parametrize("command", OURS)
def test_every_command_is_valid_except_for_its_files(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In an empty folder each fails with an error that names one of its paths, writing nothing."""
    monkeypatch.chdir(tmp_path)
    arguments = shlex.split(re.sub(r" [<>].*", "", command))[1:]
    assert main(arguments) == 2
    told = capsys.readouterr().err.splitlines()[0]
    paths = [word for word in arguments if re.match(r"my-|[A-Z]+$|CHECK|\w+\.pth$", word)]
    assert any(re.search(rf"(?<![\w-]){re.escape(path)}\b", told) for path in paths), told
    assert list(tmp_path.iterdir()) == []


def test_every_flag_of_xlm_is_in_the_page() -> None:
    """In its program's own table, with XLM's default."""
    known = {f"--{name}" for name, _ in ROW.findall(XLM_FLAGS)}
    typed = {flag for line in blocks() if "python " in line for flag in FLAG.findall(line)}
    assert typed
    assert typed <= known
    for title, ours in {
        "train.py\n": "### train.py: ",
        "glue-xnli.py\n": "### glue-xnli.py: ",
        "translate.py\n": "### translate.py: ",
        "train.py --use_memory": "### train.py with a memory: ",
    }.items():
        theirs = ROW.findall(XLM_FLAGS.split(f"\n## {title}")[1].split("\n## ")[0])
        assert theirs
        assert ROW.findall(TEXT.split(f"\n{ours}")[1].split("\n##")[0]) == theirs
