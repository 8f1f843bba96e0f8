"""``xlm plugins``: everything that is installed, in full, in a pipe as on a terminal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from xlm_plugins.cli.main import main
from xlm_plugins.cli.plugins import COMMANDS

Install = Callable[..., Path]

SOURCE = """
from xlm_plugins import Component, hookimpl

@hookimpl
def xlm_layers():
    return [Component("wide", "x:Y", summary="a layer [with brackets] " + "and words " * 30)]
"""
STORY = "a long story " * 30
CAUSE = f"RuntimeError: {STORY} (xlm_bad.py, line 1)"
REMEDY = "pip install --upgrade xlm-bad, or leave it out: XLM_DISABLE_PLUGINS=xlm-bad"


@pytest.fixture
def installed(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("xlm-wide", SOURCE, version="2.5")
    install("xlm-bad", f"raise RuntimeError({STORY!r})")
    install("xlm-off", SOURCE)
    monkeypatch.setenv("XLM_DISABLE_PLUGINS", "xlm-off")


@pytest.mark.usefixtures("installed")
def test_the_table_is_not_truncated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # xdist sets it
    assert main(["plugins"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (wide,) = [line for line in lines if "xlm-wide" in line]
    assert wide.split()[:5] == ["wide", "layer", "xlm-wide", "2.5", "ok"]
    assert "[with brackets] " + "and words " * 29 in wide
    assert any(line.split()[:4] == ["off", "xlm-off", "1.0", "disabled"] for line in lines)
    assert any(line.split()[:4] == ["bad", "xlm-bad", "1.0", "broken"] for line in lines)
    start = lines.index("xlm-bad 1.0 (bad) is broken")
    assert lines[start + 1 : start + 3] == [f"  {CAUSE}", f"  hint: {REMEDY}"]


@pytest.mark.usefixtures("installed")
def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["wide"]["kind"] == "layer"
    assert rows["wide"]["version"] == "2.5"
    bad, off = rows["bad"], rows["off"]
    assert (bad["state"], bad["cause"], bad["remedy"]) == ("broken", CAUSE, REMEDY)
    assert (off["state"], off["cause"]) == ("disabled", "XLM_DISABLE_PLUGINS names it")
    assert (rows["wide"]["state"], rows["wide"]["cause"], rows["wide"]["remedy"]) == ("ok", "", "")


def test_two_of_the_same_name_are_both_in_conflict(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("xlm-wide", SOURCE)
    install("xlm-wider", SOURCE)
    assert main(["plugins", "--json"]) == 0
    rows = {row["distribution"]: row for row in json.loads(capsys.readouterr().out)}
    for own, other in (("xlm-wide", "xlm-wider"), ("xlm-wider", "xlm-wide")):
        assert rows[own]["state"] == "conflict"
        assert rows[own]["cause"] == f"the layer 'wide' is also provided by {other} 1.0"
        assert "xlm-wide/wide or xlm-wider/wide" in rows[own]["remedy"]


def test_a_disabled_name_that_is_not_a_plugin_is_noted(
    install: Install, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install("xlm-wide", SOURCE)
    monkeypatch.setenv("XLM_DISABLE_PLUGINS", "xlm-wdie, XLM_Wide")
    assert main(["plugins", "--json"]) == 0
    printed = capsys.readouterr()
    rows = {row["distribution"]: row for row in json.loads(printed.out)}
    assert rows["xlm-wide"]["state"] == "disabled"
    assert printed.err == "note: XLM_DISABLE_PLUGINS names xlm-wdie, which is not a plugin\n"


def test_the_group_has_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--help"]) == 0
    shown = capsys.readouterr().out
    for name, (_, text) in COMMANDS.items():
        assert f"  {name}  {text}" in shown
    assert main(["plugins", "nwe"]) == 2
    assert "did you mean new?" in capsys.readouterr().err


WATCH = """
from xlm_plugins import hookimpl

@hookimpl
def xlm_step_end(step):
    pass
"""


def test_a_plugin_without_components_is_listed_with_its_hooks(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("xlm-watch", WATCH)
    assert main(["plugins", "--json"]) == 0
    (row,) = [r for r in json.loads(capsys.readouterr().out) if r["name"] == "watch"]
    assert (row["kind"], row["summary"], row["state"]) == ("hooks", "xlm_step_end", "ok")


def test_another_command_xlm_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    info = tmp_path / "xlm_core-0.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: xlm-core\nVersion: 0.3\n")
    (info / "entry_points.txt").write_text("[console_scripts]\nxlm = xlm.cli:main\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["plugins"]) == 0
    assert "xlm-core installs a command xlm too" in capsys.readouterr().err


@pytest.mark.parametrize("width", [80, 100])
def test_the_table_keeps_to_the_width_that_is_asked_for(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["plugins"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) == width
    monkeypatch.delenv("COLUMNS", raising=False)
    assert main(["plugins"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert max(map(len, rows)) > 100  # in a pipe, a line is a plugin
