"""Flags made from options dataclasses, alone and in ``xlm train``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest

from xlm_plugins import Component, OptionError, PluginError, RunError, option
from xlm_plugins.cli import finetune as finetune_command
from xlm_plugins.cli import train as train_command
from xlm_plugins.cli.options import Section, SectionedCommand, all_given, given
from xlm_plugins.core.plugins import Plugins, new_manager
from xlm_plugins.core.registry import RESERVED_NAMES, Registry, with_origin


@dataclass(frozen=True)
class Keys:
    n_keys: int = option(128, "sub-keys", minimum=2)
    rate: float = option(1e-3, "a rate", above=0.0)
    shared: bool = option(True, "share them")
    width: int | None = option(None, "width")
    kind: str = option("flat", "of memory", choices=("flat", "product"))
    names: tuple[str, ...] = option((), "several")


@dataclass
class Obj:
    """What the group puts into the context."""

    plugins: Plugins


@pytest.fixture
def plugins() -> Plugins:
    components = [
        with_origin(Component("pkm", "x:Y", Keys), "layer", "xlm-pkm", "1"),
        with_origin(Component("tlm", "x:Y", Keys), "objective", "xlm-tlm", "1"),
        with_origin(Component("bpe", "x:Y", Keys), "tokenizer", "xlm-bpe", "1"),
        with_origin(Component("classify", "x:Y", Keys), "task", "xlm-classify", "1"),
    ]
    return Plugins(new_manager(), Registry(components))


def run(plugins: Plugins, *arguments: str) -> dict[str, dict[str, Any]]:
    """What `given` returns in a command that has one core section and a chosen layer's."""

    def sections(plugins: Plugins, arguments: Sequence[str]) -> list[Section]:
        layers = all_given(arguments, "--layer")
        chosen = [Section.of(plugins.get("layer", name), name) for name in layers]
        return [Section("core", "Core", Keys), *chosen]

    @click.command(cls=SectionedCommand, sections=sections)
    @click.option("--layer")
    @click.pass_context
    def command(context: click.Context, layer: str | None) -> dict[str, dict[str, Any]]:
        return given(context)

    found: dict[str, dict[str, Any]] = command.main(
        list(arguments), standalone_mode=False, obj=Obj(plugins)
    )
    return found


def test_a_component_selected_by_its_full_name_has_flags_of_that_name(plugins: Plugins) -> None:
    name = "xlm-pkm/pkm"
    flags = (f"--{name}.n-keys", "7", f"--{name}.no-shared", f"--{name}.rate=0.5")
    found = run(plugins, "--layer", name, *flags)
    assert found == {name: {"n_keys": 7, "shared": False, "rate": 0.5}}


def test_only_what_was_written_counts(plugins: Plugins) -> None:
    assert run(plugins) == {}
    assert run(plugins, "--n-keys", "128") == {"core": {"n_keys": 128}}


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        (["--rate", "2"], {"rate": 2.0}),
        (["--rate=1e-4"], {"rate": 1e-4}),
        (["--shared"], {"shared": True}),
        (["--no-shared"], {"shared": False}),
        (["--width", "3"], {"width": 3}),
        (["--width", ""], {"width": None}),
        (["--names", "a,b", "--names", "c"], {"names": ("a,b", "c")}),
        (["--names", ""], {"names": ()}),
        (["--kind", "product"], {"kind": "product"}),
    ],
)
def test_values(plugins: Plugins, arguments: list[str], values: dict[str, Any]) -> None:
    assert run(plugins, *arguments) == {"core": values}


def test_a_selected_plugin_brings_its_options(plugins: Plugins) -> None:
    arguments = ["--layer", "pkm", "--pkm.n-keys", "16", "--pkm.no-shared", "--n-keys=3"]
    assert run(plugins, *arguments) == {
        "pkm": {"n_keys": 16, "shared": False},
        "core": {"n_keys": 3},
    }


@pytest.mark.parametrize("text", ["x", "2.5", ""])
def test_what_is_no_number_is_refused(plugins: Plugins, text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a whole number"):
        run(plugins, "--n-keys", text)


def test_an_option_of_an_unselected_plugin_says_whom_to_select(plugins: Plugins) -> None:
    with pytest.raises(OptionError, match="--layer pkm") as error:
        run(plugins, "--pkm.n-keys", "16")
    assert "layer 'pkm', which is not selected" in error.value.problem


def test_an_option_of_a_task_says_which_command_has_it(plugins: Plugins) -> None:
    with pytest.raises(OptionError, match="xlm finetune classify"):
        run(plugins, "--classify.n-keys", "16")


def test_an_option_of_a_plugin_that_the_command_cannot_use(plugins: Plugins) -> None:
    with pytest.raises(OptionError, match=r"leave --bpe\.n-keys out"):
        run(plugins, "--bpe.n-keys", "16")


@pytest.mark.parametrize(
    ("flag", "meant"),
    [("--n-kyes", "--n-keys"), ("--pkm.n-kyes", "--pkm.n-keys"), ("--no-share", "--no-shared")],
)
def test_an_unknown_option_is_answered_with_the_nearest(
    plugins: Plugins, flag: str, meant: str
) -> None:
    with pytest.raises(OptionError, match=f"did you mean .*{meant}"):
        run(plugins, "--layer", "pkm", flag, "16")


def test_an_unknown_owner_is_no_crash(plugins: Plugins) -> None:
    with pytest.raises(OptionError, match=r"no option --nobody\.x"):
        run(plugins, "--nobody.x", "16")


def test_help_has_a_heading_for_each_section(
    plugins: Plugins, capsys: pytest.CaptureFixture[str]
) -> None:
    run(plugins, "--layer", "pkm", "--help")
    shown = capsys.readouterr().out
    assert shown.index("Options:") < shown.index("Core:") < shown.index("pkm (layer):")
    assert "--pkm.n-keys INTEGER" in shown
    assert "--pkm.shared / --pkm.no-shared" in shown
    assert "--kind [flat|product]" in shown
    assert "sub-keys  [default 128; from 2]" in shown
    assert "tlm" not in shown


def test_all_given_finds_both_spellings_and_stops_at_two_dashes() -> None:
    arguments = ["--layer", "a", "--layer=b", "--layers", "c", "--", "--layer", "d"]
    assert all_given(arguments, "--layer") == ["a", "b"]
    assert all_given(["--layer"], "--layer") == []


def sections_of_train(plugins: Plugins, *arguments: str) -> list[str]:
    """Those of what is selected, which come after the core's."""
    keys = [section.key for section in train_command.sections(plugins, arguments)]
    core = [section.key for section in train_command.CORE]
    assert keys[: len(core)] == core
    assert set(core) <= set(RESERVED_NAMES)
    return keys[len(core) :]


def sections_of_finetune(plugins: Plugins, *arguments: str) -> list[str]:
    keys = [section.key for section in finetune_command.sections(plugins, arguments)]
    return keys[len(finetune_command.CORE) :]


def test_finetune_selects_by_argument_or_file(plugins: Plugins, tmp_path: Path) -> None:
    assert sections_of_finetune(plugins, "classify", "--from", "x") == ["classify"]
    assert sections_of_finetune(plugins, "--from", "x", "classify") == ["classify"]
    assert sections_of_finetune(plugins, "--out=x", "xlm-classify/classify", "--epochs", "1") == [
        "xlm-classify/classify"
    ]
    assert sections_of_finetune(plugins, "--out", "classify") == []
    path = tmp_path / "run.toml"
    path.write_text("[finetune]\nepochs = 2\n[classify]\n")
    assert sections_of_finetune(plugins, "--config", str(path)) == ["classify"]


def test_a_default_of_many_is_shown_as_it_is_written(plugins: Plugins) -> None:
    @dataclass(frozen=True)
    class Many:
        codes: tuple[str, ...] = option(("en", "fr"), "languages", comma=True)
        none: tuple[str, ...] = option((), "nothing")

    @click.command(cls=SectionedCommand, sections=lambda *_: [Section("many", "Many", Many)])
    def command() -> None:
        """Nothing."""

    context = click.Context(command, obj=Obj(plugins))
    command.parse_args(context, [])
    shown = command.get_help(context)
    assert "languages  [default en,fr]" in shown
    assert "nothing\n" in f"{shown}\n"


def test_train_selects_by_flag(plugins: Plugins) -> None:
    arguments = ("--objective", "tlm:en-fr@0.5", "--layer=pkm:1,2+")
    assert sections_of_train(plugins, *arguments) == ["tlm", "pkm"]


def test_train_selects_by_file_and_flags_win(plugins: Plugins, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('[train]\nobjective = "tlm"\nlayer = ["pkm:2"]\n')
    assert sections_of_train(plugins, "--config", str(path)) == ["tlm", "pkm"]
    other = ("--config", str(path), "--layer", "xlm-pkm/pkm")
    assert sections_of_train(plugins, *other) == ["tlm", "xlm-pkm/pkm"]


def test_train_takes_the_settings_of_the_run_it_goes_on_with(
    plugins: Plugins, tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_text('[train]\nobjective = ["tlm"]\n')
    assert sections_of_train(plugins, "--resume", str(tmp_path)) == ["tlm"]
    assert sections_of_train(plugins, "--resume", "auto") == []
    with pytest.raises(RunError, match="it holds no run"):
        sections_of_train(plugins, "--resume", str(tmp_path / "other"))


def test_train_refuses_an_unknown_objective_before_anything_else(plugins: Plugins) -> None:
    with pytest.raises(PluginError, match="did you mean tlm"):
        sections_of_train(plugins, "--objective", "tlmm")
