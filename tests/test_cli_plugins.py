"""``xlm plugins``: everything that is installed, whole, in a pipe as in a terminal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from xlm_plugins.cli.main import main

Install = Callable[..., Path]

SOURCE = """
from xlm_plugins import Component, hookimpl

@hookimpl
def xlm_layers():
    return [Component("wide", "x:Y", summary="a layer [with brackets] " + "and words " * 30)]
"""
STORY = "a long story " * 30
CAUSE = f"RuntimeError: {STORY}"


@pytest.fixture
def installed(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("xlm-wide", SOURCE, version="2.5")
    install("xlm-bad", f"raise RuntimeError({STORY!r})")
    install("xlm-off", SOURCE)
    monkeypatch.setenv("XLM_DISABLE_PLUGINS", "xlm-off")


@pytest.mark.usefixtures("installed")
def test_a_table_with_nothing_cut_off(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (wide,) = [line for line in lines if "xlm-wide" in line]
    assert wide.split()[:5] == ["wide", "layer", "xlm-wide", "2.5", "ok"]
    assert "[with brackets] " + "and words " * 29 in wide
    assert any(line.split()[:4] == ["off", "xlm-off", "1.0", "disabled"] for line in lines)
    assert any(line.split()[:4] == ["bad", "xlm-bad", "1.0", "broken"] for line in lines)
    assert f"  {CAUSE}" in lines


@pytest.mark.usefixtures("installed")
def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["wide"]["kind"] == "layer"
    assert rows["wide"]["version"] == "2.5"
    assert (rows["bad"]["state"], rows["bad"]["cause"]) == ("broken", CAUSE)
    assert rows["off"]["state"] == "disabled"
