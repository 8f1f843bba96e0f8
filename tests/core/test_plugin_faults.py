"""Broken plugins, installed by pip: each is reported with cause and hint, and affects no other."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from xlm_plugins import PluginError
from xlm_plugins.cli.main import main
from xlm_plugins.core.plugins import Plugins

PROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "{name}"
version = "{version}"
dependencies = [{requires}]

[project.entry-points.xlm]
{short} = "{module}"

[tool.setuptools]
package-dir = {{ "" = "src" }}
py-modules = ["{module}"]
"""

LAYER = """\
from dataclasses import dataclass
from xlm_plugins import Component, hookimpl, option

@dataclass(frozen=True)
class Options:
    share: bool = option(False, "share something")

@hookimpl
def xlm_layers():
    return [Component("NAME", "xlm_NAME:Wide", Options)]

@hookimpl
def xlm_commands(cli):
    @cli.command()
    def NAME_it(): pass
"""

SMALL = ("--dim=16", "--n-layers=1", "--n-heads=2", "--steps=2", "--window=32", "--threads=1")


@dataclass(frozen=True)
class Broken:
    """A plugin, and what is reported about it.

    :param cause: parts of the cause.
    :param remedy: parts of the hint.
    """

    source: str
    cause: tuple[str, ...]
    remedy: tuple[str, ...]
    requires: str = ""
    state: str = "broken"


def layer(name: str, old: str = "", new: str = "") -> str:
    """A valid layer plugin, with a part of it replaced."""
    assert old in LAYER
    return LAYER.replace(old, new).replace("NAME", name) if old else LAYER.replace("NAME", name)


BROKEN = {
    "raises": Broken(
        "def fail():\n    raise RuntimeError('no luck')\nfail()\n",
        ("RuntimeError: no luck (xlm_raises.py, line 2)",),
        ("pip install --upgrade xlm-raises", "XLM_DISABLE_PLUGINS=xlm-raises"),
    ),
    "dependency": Broken(
        "import not_here_anywhere.inner\n",
        ("needs the module 'not_here_anywhere', which is not installed",),
        ("pip install 'Not.Here_Anywhere>=2'",),
        requires='"Not.Here_Anywhere>=2", "click"',
    ),
    "undeclared": Broken(
        "import nor_this\n",
        ("needs the module 'nor_this'",),
        ("xlm-undeclared does not declare it: ask its author",),
    ),
    "misspelt": Broken(
        layer("misspelt", "def xlm_layers", "def xlm_layer"),
        ("implements xlm_layer, but there is no such hook",),
        ("did you mean xlm_layers", "pip install --upgrade xlm-misspelt"),
    ),
    "signature": Broken(
        layer("signature", "xlm_commands(cli)", "xlm_commands(cli, parser)"),
        (
            "xlm_commands(cli, parser) has parameters that the hook is not called with: parser",
            "xlm_commands(cli)",
        ),
        ("use these parameters",),
    ),
    "answer": Broken(
        layer("answer", "return [Component(", "return [dict, Component("),
        ("its xlm_layers returned <class 'dict'> in its list", "only Components"),
        ("return [Component(...)]",),
    ),
    "newer": Broken(
        layer("newer"),
        ("built for xlm-plugins>=9", "xlm-plugins 0."),
        ("pip install --upgrade xlm-newer", "pip install 'xlm-plugins>=9'"),
        requires='"xlm-plugins>=9"',
    ),
    "clash": Broken(
        layer("clash", "    share:", '    no_share: int = option(1, "n")\n    share:'),
        ("layer 'clash' has options that cannot be used", "Options.no_share clashes with"),
        ("each with its own flag",),
    ),
    "command": Broken(
        layer("command", "def NAME_it", "def train"),
        ("in xlm_commands", "adds the command 'train', which the core already provides"),
        ("XLM_DISABLE_PLUGINS=xlm-command",),
    ),
    "twin": Broken(
        layer("twin", '"NAME",', '"pkm",'),
        ("the layer 'pkm' is also provided by xlm-pkm 0.1.0",),
        ("xlm-pkm/pkm or xlm-twin/pkm", "XLM_DISABLE_PLUGINS=xlm-twin"),
        state="conflict",
    ),
    "section": Broken(
        layer("section", '"NAME",', '"train",'),
        ("[train] is a section of the core's own options",),
        ("--layer xlm-section/train",),
        state="conflict",
    ),
}
"""By the plugin's short name: ``raises`` is the distribution xlm-raises."""


def write_project(folder: Path, name: str, broken: Broken) -> Path:
    """Write the project of a distribution to ``folder/name``."""
    project = folder / name
    module = f"xlm_{name}"
    (project / "src").mkdir(parents=True)
    (project / "src" / f"{module}.py").write_text(broken.source)
    text = PROJECT.format(
        name=f"xlm-{name}", version="1.5", requires=broken.requires, short=name, module=module
    )
    (project / "pyproject.toml").write_text(text)
    return project


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which pip has installed all of them."""
    folder = tmp_path_factory.mktemp("broken")
    projects = [write_project(folder, name, broken) for name, broken in BROKEN.items()]
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    offline = ("--no-index", "--no-deps", "--no-build-isolation")
    command = [*pip, *offline, "--target", folder / "site", *projects]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All of them are on the path."""
    monkeypatch.syspath_prepend(str(site))
    yield
    for name in BROKEN:
        sys.modules.pop(f"xlm_{name}", None)


@pytest.mark.usefixtures("installed")
def test_each_is_listed_with_its_cause_and_the_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--json"]) == 0
    rows = {row["distribution"]: row for row in json.loads(capsys.readouterr().out)}
    assert main(["plugins"]) == 0
    table = capsys.readouterr().out
    for name, broken in BROKEN.items():
        row = rows[f"xlm-{name}"]
        assert (row["version"], row["state"]) == ("1.5", broken.state), name
        for part in broken.cause:
            assert part in row["cause"], name
        for part in broken.remedy:
            assert part in row["remedy"], name
        assert f"  {row['cause']}\n  hint: {row['remedy']}\n" in table
    assert rows["xlm-pkm"]["state"] == "conflict"
    assert "the layer 'pkm' is also provided by xlm-twin 1.5" in rows["xlm-pkm"]["cause"]
    assert {row["state"] for name, row in rows.items() if name[4:] not in {*BROKEN, "pkm"}} == {
        "ok"
    }


@pytest.mark.usefixtures("installed")
def test_strict_refuses_them_all_before_the_command_runs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--strict-plugins", "data", "nowhere"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "nowhere" not in printed.err
    for name, broken in BROKEN.items():
        assert f"xlm-{name} 1.5" in printed.err
        for part in (*broken.cause, *broken.remedy):
            assert part in printed.err


@pytest.mark.usefixtures("installed")
def test_commands_that_need_none_of_them_work(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "twin-it" in shown
    assert "signature-it" not in shown
    run, data = str(tmp_path / "run"), str(tiny_data)
    assert main(["train", "--objective", "mlm", "--data", data, "--out", run, *SMALL]) == 0
    assert main(["evaluate", run, "--split", "valid"]) == 0
    assert "is broken" not in capsys.readouterr().err


@pytest.mark.usefixtures("installed")
def test_selecting_a_broken_one_reports_the_cause() -> None:
    plugins = Plugins.discover()
    for name in ("raises", "dependency", "misspelt", "signature", "answer", "newer", "clash"):
        with pytest.raises(PluginError) as error:
            plugins.get("layer", name)
        assert f"xlm-{name} 1.5 is broken" in error.value.problem
        assert BROKEN[name].cause[0] in error.value.problem
        assert BROKEN[name].remedy[0] in error.value.remedy


@pytest.mark.usefixtures("installed")
def test_those_in_conflict_can_be_selected_by_full_name() -> None:
    plugins = Plugins.discover()
    with pytest.raises(PluginError, match=r"xlm-pkm 0\.1\.0 and xlm-twin 1\.5"):
        plugins.get("layer", "pkm")
    assert plugins.get("layer", "xlm-twin/pkm").version == "1.5"
    assert plugins.get("layer", "xlm-pkm/pkm").version == "0.1.0"
    assert plugins.get("layer", "command").distribution == "xlm-command"


@pytest.mark.usefixtures("installed")
def test_disabled_ones_are_no_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XLM_DISABLE_PLUGINS", ", ".join(f"XLM_{name}" for name in BROKEN))
    assert main(["--strict-plugins", "plugins", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["state"] for row in rows if row["version"] == "1.5"} == {"disabled"}
    assert not any(name in sys.modules for name in (f"xlm_{name}" for name in BROKEN))


WATCH = """\
from xlm_plugins import hookimpl

@hookimpl
def xlm_step_end(step):
    if step == {step}:
        raise OSError("the disk is full")
"""


@pytest.mark.parametrize(("step", "left"), [(0, False), (1, True)])
def test_a_hook_that_fails_in_a_run_ends_it_under_strict_only(
    step: int,
    left: bool,
    install: Callable[..., Path],
    tiny_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    install("xlm-watch", WATCH.format(step=step))
    command = ["train", "--objective", "mlm", "--data", str(tiny_data), *SMALL]
    assert main(["--strict-plugins", *command, "--out", str(tmp_path / "strict")]) == 2
    told = capsys.readouterr().err
    assert "the plugin xlm-watch 1.0 failed: in xlm_step_end: OSError: the disk is full" in told
    assert "hint: pip install --upgrade xlm-watch" in told
    assert (tmp_path / "strict").exists() == left
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    assert "the disk is full" in capsys.readouterr().err
