"""The program: its commands, its errors and its exit statuses."""

from __future__ import annotations

import importlib
import io
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from xlm_plugins import __version__
from xlm_plugins.cli import main as cli
from xlm_plugins.core.plugins import Plugins, new_manager

Install = Callable[..., Path]

COMMAND = """
import click
from xlm_plugins import OptionError, hookimpl

@hookimpl
def xlm_commands(cli):
    @cli.command()
    @click.argument("what")
    def greet(what):
        "Greet somebody."
        if what == "nobody":
            raise OptionError("nobody is there", expected="a name", remedy="xlm greet you")
        if what == "interrupt":
            raise KeyboardInterrupt
        if what == "print":
            return print("hello")
        if what == "exit":
            raise SystemExit(5)
        if what == "file":
            open("/no/such/file")
        if what == "bug":
            raise ZeroDivisionError
        click.echo(f"hello {what}")
        return 3 if what == "three" else None
"""


@pytest.fixture
def greet(install: Install) -> None:
    install("xlm-greet", COMMAND)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_table_of_commands_is_right(name: str) -> None:
    module, _, attribute = cli.COMMANDS[name][0].partition(":")
    command = getattr(importlib.import_module(f"xlm_plugins.cli.{module}"), attribute)
    assert isinstance(command, click.Command)
    assert command.name == name


@pytest.mark.parametrize("command", [["plugins"], ["plugins", "--json"], ["tokenizer", "encode"]])
def test_a_closed_pipe_ends_the_program_quietly(command: list[str], tiny_data: Path) -> None:
    """As in `xlm plugins | head -1`: output by rich, by click, and streamed."""
    if command[0] == "tokenizer":
        command = [*command, str(tiny_data)]
    program = subprocess.Popen(
        [sys.executable, "-m", "xlm_plugins", *command],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert program.stdout is not None
    program.stdout.close()
    _, told = program.communicate(b"a line\n" * 10_000, timeout=60)
    assert told == b""
    assert program.returncode == 141


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name, (_, text) in cli.COMMANDS.items():
        assert f"  {name} " in shown
        assert text in shown


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


def test_the_error_for_an_unknown_command_suggests_another(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["trian"]) == 2
    assert "did you mean train?" in capsys.readouterr().err


def test_clicks_own_usage_errors_have_the_same_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plugins", "--jsn"]) == 2
    assert "--json" in capsys.readouterr().err


@pytest.mark.usefixtures("greet")
def test_buffered_output_is_flushed(monkeypatch: pytest.MonkeyPatch) -> None:
    class NobodyReads(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", NobodyReads())
    assert cli.main(["greet", "print"]) == 141


@pytest.mark.usefixtures("greet")
@pytest.mark.parametrize("before", [["--local_rank=1"], ["--local-rank", "1"], []])
def test_a_plugins_command_runs_and_a_launchers_rank_is_ignored(
    before: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*before, "greet", "you"]) == 0
    assert capsys.readouterr().out == "hello you\n"


@pytest.mark.usefixtures("greet")
def test_a_plugins_command_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["--help"])
    shown = capsys.readouterr().out
    assert re.search(r"^  greet +Greet somebody\.$", shown, re.MULTILINE)


@pytest.mark.usefixtures("greet")
@pytest.mark.parametrize(("what", "status"), [("three", 3), ("interrupt", 130), ("file", 2)])
def test_exit_status(what: str, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["greet", what]) == status
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.usefixtures("greet")
def test_a_users_error_prints_without_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["greet", "nobody"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == ("error: nobody is there\n  expected: a name\n  hint: xlm greet you\n")


@pytest.mark.usefixtures("greet")
def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--debug", "greet", "nobody"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.usefixtures("greet")
def test_bugs_are_not_caught() -> None:
    with pytest.raises(ZeroDivisionError):
        cli.main(["greet", "bug"])
    with pytest.raises(SystemExit, match="5"):
        cli.main(["greet", "exit"])


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        (
            COMMAND.replace("@cli.command()", '@cli.command("train")'),
            "'train', which the core already provides",
        ),
        (COMMAND + "    raise RuntimeError('half-way')\n", "RuntimeError: half-way"),
    ],
)
def test_a_plugin_whose_commands_fail_adds_none_and_breaks_nothing(
    source: str, cause: str, install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("xlm-greet", source)
    assert cli.main(["plugins"]) == 0
    printed = capsys.readouterr()
    assert cause in printed.out
    assert printed.err == ""
    assert cli.main(["greet", "you"]) == 2
    assert cause in capsys.readouterr().err
    assert cli.main(["--debug", "plugins"]) == 0
    assert cause in capsys.readouterr().err


def test_the_first_of_two_plugins_with_the_same_command_keeps_it(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("xlm-greet", COMMAND)
    install("xlm-hello", COMMAND)
    assert cli.main(["greet", "you"]) == 0
    assert cli.main(["plugins"]) == 0
    shown = capsys.readouterr().out
    assert "xlm-hello 1.0 (hello) is broken" in shown
    assert "adds the command 'greet', which xlm-greet already provides" in shown
    assert "disable one of the two: XLM_DISABLE_PLUGINS=xlm-greet" in shown
    assert "xlm-greet 1.0 (greet) is broken" not in shown


def test_the_error_for_a_command_of_a_disabled_plugin_says_so(
    install: Install, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install("xlm-greet", COMMAND)
    monkeypatch.setenv("XLM_DISABLE_PLUGINS", "greet")
    assert cli.main(["greet", "you"]) == 2
    told = capsys.readouterr().err
    assert "there is no command 'greet': xlm-greet 1.0 is disabled" in told
    assert "hint: remove it from XLM_DISABLE_PLUGINS" in told


def test_strict_refuses_broken_plugins_only(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("xlm-greet", COMMAND)
    assert cli.main(["--strict-plugins", "greet", "you"]) == 0
    capsys.readouterr()
    install("xlm-bad", "raise RuntimeError('no luck')")
    assert cli.main(["--strict-plugins", "greet", "you"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        "error: with --strict-plugins no plugin may be broken or in conflict\n"
        "  xlm-bad 1.0 (bad) is broken\n"
        "    RuntimeError: no luck (xlm_bad.py, line 1)\n"
        "    hint: pip install --upgrade xlm-bad, "
        "or leave it out: XLM_DISABLE_PLUGINS=xlm-bad\n"
    )


def test_each_group_is_built_anew(install: Install) -> None:
    install("xlm-greet", COMMAND)
    with_greet = cli.build_group(Plugins.discover())
    without = cli.build_group(Plugins(new_manager()))
    assert "greet" in with_greet.commands
    assert "greet" not in without.commands
