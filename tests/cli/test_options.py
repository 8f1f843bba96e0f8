"""Flags built from options dataclasses, alone and in ``xlm train``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest

from xlm_plugins import Component, OptionError, PluginError, RunError, option
from xlm_plugins.cli import finetune as finetune_command
from xlm_plugins.cli import train as train_command
from xlm_plugins.cli.options import Section, SectionedCommand, asks_for_help, given
from xlm_plugins.config.training import FinetuneOptions, TrainOptions
from xlm_plugins.core.options import fields_of
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
    """What `given` returns in a command with one core section and that of a selected layer."""

    def select(first: click.Context) -> list[Section]:
        name = first.params["layer"]
        return [Section.of(first.obj.plugins.get("layer", name), name)] if name else []

    @click.command(cls=SectionedCommand, core=[Section("core", "Core", Keys)], select=select)
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


def test_only_flags_on_the_command_line_are_given(plugins: Plugins) -> None:
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
def test_a_value_that_is_not_a_number_is_refused(plugins: Plugins, text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a whole number"):
        run(plugins, "--n-keys", text)


def test_the_error_for_an_unselected_plugin_says_how_to_select_it(plugins: Plugins) -> None:
    with pytest.raises(OptionError, match="--layer pkm") as error:
        run(plugins, "--pkm.n-keys", "16")
    assert "layer 'pkm', which is not selected" in error.value.problem


def test_the_error_for_an_option_of_a_task_names_the_command(plugins: Plugins) -> None:
    with pytest.raises(OptionError, match="xlm finetune classify"):
        run(plugins, "--classify.n-keys", "16")


def test_an_option_of_a_plugin_that_the_command_cannot_use(plugins: Plugins) -> None:
    with pytest.raises(OptionError, match=r"remove --bpe\.n-keys"):
        run(plugins, "--bpe.n-keys", "16")


@pytest.mark.parametrize(
    ("flag", "meant"),
    [("--n-kyes", "--n-keys"), ("--pkm.n-kyes", "--pkm.n-keys"), ("--no-share", "--no-shared")],
)
def test_the_error_for_an_unknown_option_suggests_another(
    plugins: Plugins, flag: str, meant: str
) -> None:
    with pytest.raises(OptionError, match=f"did you mean .*{meant}"):
        run(plugins, "--layer", "pkm", flag, "16")


def test_an_unknown_owner_is_an_error(plugins: Plugins) -> None:
    with pytest.raises(OptionError, match=r"no option --nobody\.x"):
        run(plugins, "--nobody.x", "16")


def test_help_has_a_heading_for_each_section(
    plugins: Plugins, capsys: pytest.CaptureFixture[str]
) -> None:
    run(plugins, "--layer", "pkm", "--help")
    shown = capsys.readouterr().out
    assert shown.index("Options:") < shown.index("pkm (layer):") < shown.index("Core:")
    assert "--pkm.n-keys INTEGER" in shown
    assert "--pkm.shared / --pkm.no-shared" in shown
    assert "--kind [flat|product]" in shown
    assert "sub-keys  [default 128; from 2]" in shown
    assert "tlm" not in shown


def test_the_first_parse_is_lenient_and_stops_at_two_dashes(plugins: Plugins) -> None:
    seen: list[tuple[object, ...]] = []

    def select(first: click.Context) -> list[Section]:
        seen.append(
            (first.params["layer"], given(first), first.params["rest"], asks_for_help(first))
        )
        first.meta["told"] = "later"
        return []

    @click.command(cls=SectionedCommand, core=[Section("core", "Core", Keys)], select=select)
    @click.argument("rest", nargs=2)
    @click.option("--layer", multiple=True)
    @click.pass_context
    def command(context: click.Context, rest: tuple[str, str], layer: tuple[str, ...]) -> None:
        assert rest == ("--layer", "d")
        assert context.meta["told"] == "later"

    arguments = ["--layer", "a", "--n-keys=x", "--layer=b", "--rate", "2", "--", "--layer", "d"]
    with pytest.raises(click.BadParameter):
        command.main(arguments, standalone_mode=False, obj=Obj(plugins))
    arguments.remove("--n-keys=x")
    command.main(arguments, standalone_mode=False, obj=Obj(plugins))
    with pytest.raises(OptionError, match=r"no option --x\.y"):
        command.main(["--layer", "a", "--x.y", "z"], standalone_mode=False, obj=Obj(plugins))
    command.main(["--help", "--rate=x"], standalone_mode=False, obj=Obj(plugins))
    assert seen == [
        *[(("a", "b"), {"core": {"rate": 2.0}}, ("--layer", "d"), False)] * 2,
        (("a",), {}, ("--x.y", "z"), False),
        ((), {}, None, True),
    ]


@dataclass(frozen=True)
class Grouped:
    size: int = option(1, "a size", group="Shape")
    eps: float = option(1e-8, "a small number", group="Shape", advanced=True)
    depth: int = option(1, "a depth")


@pytest.mark.parametrize("flag", ["--help", "--help-all"])
def test_advanced_options_are_counted_or_shown(
    capsys: pytest.CaptureFixture[str], plugins: Plugins, flag: str
) -> None:
    extra = Section("extra", "Extra", Keys, "extra.", advanced=True)
    command = SectionedCommand("make", core=[Section("core", "Core", Grouped), extra])
    command.main([flag], standalone_mode=False, obj=Obj(plugins))
    shown = capsys.readouterr().out
    everything = flag == "--help-all"
    assert (
        re.findall(r"^(\w+):$", shown, re.MULTILINE)
        == ["Options", "Shape", "Core", "Extra"][: 4 if everything else 3]
    )
    assert ("--eps" in shown) is ("--extra.n-keys" in shown) is everything
    assert ("7 more options: " in shown) is not everything


def test_where_nothing_is_advanced_the_help_is_whole(
    capsys: pytest.CaptureFixture[str], plugins: Plugins
) -> None:
    command = SectionedCommand("make", core=[Section("core", "Core", Keys)])
    command.main(["--help"], standalone_mode=False, obj=Obj(plugins))
    assert "--help-all" not in capsys.readouterr().out


@pytest.mark.parametrize("command", [train_command.train, finetune_command.finetune])
def test_every_option_is_in_the_whole_help_under_a_heading_of_its_group(
    capsys: pytest.CaptureFixture[str], command: SectionedCommand
) -> None:
    plugins = Plugins.discover()
    with pytest.raises(SystemExit, match="0"):
        command.main(["--help-all"], obj=Obj(plugins))
    shown = capsys.readouterr().out
    for section in command._core:
        for field in fields_of(section.options):
            assert f"  --{section.prefix}{field.key} " in shown
            heading = field.info.group or section.title
            assert f"\n{heading}:\n" in shown
    assert "\nRun:\n" in shown


def test_settings_of_a_run_all_have_a_group() -> None:
    for options in (TrainOptions, FinetuneOptions):
        assert [field.name for field in fields_of(options) if not field.info.group] == []


def selected(
    capsys: pytest.CaptureFixture[str], plugins: Plugins, command: click.Command, *arguments: str
) -> list[str]:
    """The components whose options the help shows, below those of the core."""
    with pytest.raises(SystemExit, match="0"):
        command.main([*arguments, "--help"], obj=Obj(plugins))
    shown = capsys.readouterr().out
    return re.findall(r"^(\S+) \((?:objective|layer|task|tokenizer)\):$", shown, re.MULTILINE)


Selected = Callable[..., list[str]]


@pytest.fixture
def of_train(plugins: Plugins, capsys: pytest.CaptureFixture[str]) -> Selected:
    return partial(selected, capsys, plugins, train_command.train)


@pytest.fixture
def of_finetune(plugins: Plugins, capsys: pytest.CaptureFixture[str]) -> Selected:
    return partial(selected, capsys, plugins, finetune_command.finetune)


def test_names_of_the_cores_sections_are_reserved() -> None:
    core = {section.key for section in (*train_command.CORE, *finetune_command.CORE)}
    assert core <= set(RESERVED_NAMES)


def test_finetune_selects_by_argument_or_file(of_finetune: Selected, tmp_path: Path) -> None:
    assert of_finetune("classify", "--from", "x") == ["classify"]
    assert of_finetune("--from", "x", "classify") == ["classify"]
    assert of_finetune("--classify.rate", "2", "classify") == ["classify"]
    assert of_finetune("--classify.rate=2", "classify") == ["classify"]
    assert of_finetune("--help", "classify") == ["classify"]
    full_name = "xlm-classify/classify"
    assert of_finetune("--out=x", full_name, "--epochs", "1") == [full_name]
    assert of_finetune("--out", "classify") == []
    path = tmp_path / "run.toml"
    path.write_text("[finetune]\nepochs = 2\n[classify]\n")
    assert of_finetune("--config", str(path)) == ["classify"]


def test_a_default_of_many_is_shown_as_a_flag_value(plugins: Plugins) -> None:
    @dataclass(frozen=True)
    class Many:
        codes: tuple[str, ...] = option(("en", "fr"), "languages", comma=True)
        none: tuple[str, ...] = option((), "nothing")

    @click.command(cls=SectionedCommand, core=[Section("many", "Many", Many)])
    def command() -> None:
        """Nothing."""

    context = click.Context(command, obj=Obj(plugins))
    command.parse_args(context, [])
    shown = command.get_help(context)
    assert "languages  [default en,fr]" in shown
    assert "nothing\n" in f"{shown}\n"


def test_train_selects_by_flag(of_train: Selected) -> None:
    arguments = ("--objective", "tlm:en-fr@0.5", "--layer=pkm:1,2+")
    assert of_train(*arguments) == ["tlm", "pkm"]


def test_train_selects_by_file_and_flags_win(of_train: Selected, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('[train]\nobjective = "tlm"\nlayer = ["pkm:2"]\n')
    assert of_train("--config", str(path)) == ["tlm", "pkm"]
    other = ("--config", str(path), "--layer", "xlm-pkm/pkm")
    assert of_train(*other) == ["tlm", "xlm-pkm/pkm"]


def test_train_selects_by_the_run_to_resume(of_train: Selected, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[train]\nobjective = ["tlm"]\n')
    assert of_train("--resume", str(tmp_path)) == ["tlm"]
    assert of_train("--resume", "auto") == []
    with pytest.raises(RunError, match="holds no run"):
        of_train("--resume", str(tmp_path / "other"))


def test_train_refuses_an_unknown_objective_first(of_train: Selected) -> None:
    with pytest.raises(PluginError, match="did you mean tlm"):
        of_train("--objective", "tlmm")
