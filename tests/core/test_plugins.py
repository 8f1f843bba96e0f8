"""Discovery with broken plugins: each is isolated, listed, and reported with its cause."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from xlm_plugins import PluginError
from xlm_plugins.core.plugins import Plugins, PluginState

Install = Callable[..., Path]

GOOD = """
from xlm_plugins import Component, hookimpl

@hookimpl
def xlm_objectives():
    return [Component("good", "xlm_good:Good", summary="fine")]
"""
OPTIONS = "\nimport dataclasses\n@dataclasses.dataclass{frozen}\nclass Bare:\n    x: int = 1\n"
STEP_END = """
from xlm_plugins import hookimpl

@hookimpl
def xlm_step_end(run, step):
    if step == 2:
        raise RuntimeError("full")
    print("step", step)
"""
FAULTS = {
    "a syntax error": ("def (", "SyntaxError"),
    "an error while importing": ("raise RuntimeError('no luck')", "RuntimeError: no luck"),
    "a missing dependency": ("import not_installed_anywhere", "not_installed_anywhere"),
    "a missing part of its own": (
        "import xlm_bad.inner",
        "its own module 'xlm_bad.inner' is missing",
    ),
    "a name that this core lacks": (
        "from xlm_plugins import Compnent",
        "built for another version of xlm-plugins: cannot import name 'Compnent'",
    ),
    "an exit while importing": ("raise SystemExit(3)", "SystemExit: 3"),
    "a misspelt hook": (GOOD.replace("xlm_objectives", "xlm_objectivs"), "xlm_objectivs"),
    "a hook without its mark": (
        GOOD.replace("@hookimpl", ""),
        "xlm_objectives has the name of a hook",
    ),
    "a wrong argument": (
        GOOD.replace("xlm_objectives()", "xlm_objectives(x)"),
        "xlm_objectives(x) has parameters that the hook is not called with: x; expected xlm_obj",
    ),
    "a wrong return type": (GOOD.replace("return [", "return ['good'] + ["), "only Components"),
    "no list": (GOOD.replace("return [", "return 3 # "), "returned 3; expected a list of"),
    "nothing": (GOOD.replace("return [", "["), "returned None; expected a list of"),
    "one name twice": (GOOD.replace(")]", ")] * 2"), "provides the objective 'good' twice"),
    "a name that no flag can hold": (
        GOOD.replace('"good",', '"a good one",'),
        "'a good one' has a name that cannot be selected",
    ),
    "a malformed target": (GOOD.replace(":Good", ""), "has the target 'xlm_good'; expected module"),
    "undeclared options": (
        GOOD.replace("summary=", "options=Bare, summary=") + OPTIONS.format(frozen="(frozen=True)"),
        "Bare.x must be declared with option",
    ),
    "options that are no dataclass": (
        GOOD.replace("summary=", "options=dict, summary="),
        "dict is not a dataclass",
    ),
}


def state_of(plugins: Plugins, distribution: str) -> PluginState:
    (found,) = [state for state in plugins.states if state.distribution == distribution]
    return found


@pytest.fixture(params=FAULTS, ids=str)
def fault(request: pytest.FixtureRequest) -> tuple[str, str]:
    return FAULTS[request.param]


def test_a_valid_plugin_provides_its_component(install: Install) -> None:
    install("xlm-good", GOOD)
    plugins = Plugins.discover()
    component = plugins.get("objective", "good")
    assert (component.distribution, component.version) == ("xlm-good", "1.0")
    assert state_of(plugins, "xlm-good").state == "ok"


def test_a_broken_plugin_leaves_the_others_alone(install: Install, fault: tuple[str, str]) -> None:
    source, cause = fault
    install("xlm-bad", source)
    install("xlm-good", GOOD)
    plugins = Plugins.discover()
    state = state_of(plugins, "xlm-bad")
    assert state.state == "broken"
    assert cause in state.cause
    assert plugins.get("objective", "good").distribution == "xlm-good"


def test_selecting_its_component_reports_the_cause(
    install: Install, fault: tuple[str, str]
) -> None:
    source, cause = fault
    install("xlm-bad", source)
    with pytest.raises(PluginError) as error:
        Plugins.discover().get("objective", "bad")
    assert "xlm-bad 1.0 is broken" in error.value.problem
    assert cause in error.value.problem
    assert "xlm-bad" in error.value.remedy
    with pytest.raises(PluginError, match=r"hint: .*\nnote: broken plugins may have provided it"):
        Plugins.discover().get("objective", "other")


def test_a_disabled_plugin_is_not_even_imported(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("xlm-bad", "raise RuntimeError('imported')")
    monkeypatch.setenv("XLM_DISABLE_PLUGINS", "xlm-other,xlm-bad")
    plugins = Plugins.discover()
    assert state_of(plugins, "xlm-bad").state == "disabled"
    assert plugins.unmatched == ("xlm-other",)
    for name in ("bad", "xlm-bad", "xlm-bad/other", "Bad"):
        with pytest.raises(PluginError, match=r"xlm-bad 1\.0 is disabled.*\n(.*\n)?hint: remove"):
            plugins.get("objective", name)
    with pytest.raises(PluginError) as error:
        plugins.get("objective", "good")
    assert "xlm-bad" not in str(error.value)


def test_a_disabled_plugin_is_not_blamed_for_a_conflict(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("xlm-one", "xlm-two", "xlm-good"):
        install(name, GOOD)
    monkeypatch.setenv("XLM_DISABLE_PLUGINS", "xlm-good")
    with pytest.raises(PluginError, match=r"xlm-one 1\.0 and xlm-two 1\.0") as error:
        Plugins.discover().get("objective", "good")
    assert "disabled" not in str(error.value)


@pytest.mark.parametrize("requirement", ["xlm-plugins>=9", "XLM_Plugins<0.1"])
def test_a_plugin_for_another_core_is_reported_with_versions(
    install: Install, requirement: str
) -> None:
    install("xlm-new", GOOD, requires=requirement)
    state = state_of(Plugins.discover(), "xlm-new")
    assert state.state == "broken"
    assert requirement in state.cause


def test_what_an_extra_requires_does_not_count(install: Install) -> None:
    install("xlm-new", GOOD, requires='xlm-plugins>=9; extra == "dev"')
    assert state_of(Plugins.discover(), "xlm-new").state == "ok"


def test_two_plugins_of_one_name_are_both_kept(install: Install) -> None:
    install("xlm-one", GOOD)
    install("xlm-two", GOOD)
    plugins = Plugins.discover()
    with pytest.raises(PluginError, match=r"xlm-one 1\.0 and xlm-two 1\.0"):
        plugins.get("objective", "good")
    assert plugins.get("objective", "xlm-two/good").distribution == "xlm-two"
    assert [text.splitlines()[0] for text in plugins.faults()] == [
        "the objective 'good' of xlm-one 1.0 is in conflict",
        "the objective 'good' of xlm-two 1.0 is in conflict",
    ]


def test_of_two_plugins_with_one_module_the_first_counts(install: Install) -> None:
    site = install("xlm-one", GOOD)
    install("xlm-two", GOOD)
    (site / "xlm_two-1.0.dist-info" / "entry_points.txt").write_text("[xlm]\ntwo = xlm_one\n")
    plugins = Plugins.discover()
    assert plugins.get("objective", "good").distribution == "xlm-one"
    assert "its module 'xlm_one' is also that of xlm-one" in (state_of(plugins, "xlm-two").cause)


def test_a_component_with_two_entry_points_counts_once(install: Install) -> None:
    site = install("xlm-one", GOOD)
    (site / "xlm_again.py").write_text(GOOD)
    entry_points = site / "xlm_one-1.0.dist-info" / "entry_points.txt"
    entry_points.write_text("[xlm]\none = xlm_one\ntwo = xlm_again\n")
    plugins = Plugins.discover()
    assert plugins.get("objective", "good").distribution == "xlm-one"
    (broken,) = plugins.broken()
    assert broken.name == "two"
    assert "by another entry point" in broken.cause


def test_of_two_versions_on_the_path_the_first_counts(install: Install, tmp_path: Path) -> None:
    install("xlm-one", GOOD, version="2.0")
    old = tmp_path / "old" / "xlm_one-1.0.dist-info"
    old.mkdir(parents=True)
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: XLM_one\nVersion: 1.0\n")
    (old / "entry_points.txt").write_text("[xlm]\nformer-name = xlm_one\n")
    sys.path.append(str(old.parent))  # the fixture puts the path back
    plugins = Plugins.discover()
    assert state_of(plugins, "xlm-one").version == "2.0"
    assert not any(state.name == "former-name" for state in plugins.states)


def test_metadata_without_a_name_is_ignored(install: Install) -> None:
    site = install("xlm-odd", GOOD)
    (site / "xlm_odd-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\n")
    install("xlm-good", GOOD)
    assert Plugins.discover().get("objective", "good")


def test_a_run_hook_that_fails_is_not_called_again(
    install: Install, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    install("xlm-watch", STEP_END)
    plugins = Plugins.discover()

    def step_end(step: int) -> list[str]:
        return plugins.call("xlm_step_end", run=tmp_path, step=step, metrics={})

    assert step_end(1) == []
    told = step_end(2)
    assert told == ["xlm-watch 1.0: in xlm_step_end: RuntimeError: full (xlm_watch.py, line 7)"]
    assert step_end(3) == []
    assert capsys.readouterr().out == "step 1\n"
    assert state_of(plugins, "xlm-watch").state == "broken"


def test_a_run_hook_that_fails_under_strict_ends_the_run(install: Install, tmp_path: Path) -> None:
    install("xlm-watch", STEP_END)
    plugins = Plugins.discover()
    plugins.refuse_faults()
    with pytest.raises(
        PluginError, match=r"xlm-watch 1\.0 failed: in xlm_step_end: .*full"
    ) as error:
        plugins.call("xlm_step_end", run=tmp_path, step=2, metrics={})
    assert "XLM_DISABLE_PLUGINS=xlm-watch" in error.value.remedy


def test_a_dependency_that_is_too_old_is_reported(install: Install) -> None:
    install("xlm-old", "import click.not_yet", requires="click>=999")
    state = state_of(Plugins.discover(), "xlm-old")
    assert "needs the module 'click.not_yet'" in state.cause
    assert state.remedy == "pip install 'click>=999'"


def test_an_unreadable_list_of_entry_points_is_ignored(install: Install) -> None:
    site = install("xlm-odd", GOOD)
    (site / "xlm_odd-1.0.dist-info" / "entry_points.txt").write_bytes(b"\xff\xfe[xlm\nno =")
    install("xlm-good", GOOD)
    assert Plugins.discover().get("objective", "good")
