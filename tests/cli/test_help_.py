"""`xlm help`, and errors of click's in the style of all others."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from xlm_plugins.cli.main import main


@pytest.mark.parametrize(
    "command", [[], ["train"], ["export", "hf"], ["train", "--objective=tlm", "--layer=pkm"]]
)
def test_it_is_what_the_option_shows(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["help", *command]) == 0
    found = capsys.readouterr().out
    assert main([*command, "--help"]) == 0
    assert found == capsys.readouterr().out
    assert found.startswith("Usage: xlm")


def test_there_is_no_such_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "trian"]) == 2
    assert "error: there is no command 'trian'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "problem", "hint"),
    [
        (["prepare"], "missing argument 'SOURCE'", "xlm prepare --help"),
        (["plot"], "missing argument 'RUN...'", "xlm plot --help"),
        (["export", "hf", "a"], "missing argument 'OUT'", "xlm export hf --help"),
        (["completion", "tcsh"], "invalid value for", "xlm completion --help"),
        (["completion", "--nothing"], "no such option", "xlm completion --help"),
        (["data", "a", "--jsn"], "no such option --jsn\n", "did you mean --json?"),
        (["prepare", "a", "b", "c"], "got unexpected extra argument (c)", "xlm prepare --help"),
    ],
)
def test_every_error_has_one_style(
    arguments: list[str], problem: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {problem}")
    assert err.endswith(f"\n  hint: {hint}\n")


def test_only_what_is_alike_is_suggested(refused: Callable[..., str]) -> None:
    refused(["evaluate", "a", "--slit"], "there is no option --slit", "did you mean --split?")
    assert "did you mean" not in refused(["evaluate", "a", "--nope"], "there is no option --nope")
