"""Discovery with broken plugins: each is kept apart, shown, and raised with its cause."""

from __future__ import annotations

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
    return [Component("good", "collections:OrderedDict", summary="fine")]
"""
FAULTS = {
    "a syntax error": ("def (", "SyntaxError"),
    "an error while importing": ("raise RuntimeError('no luck')", "RuntimeError: no luck"),
    "a missing dependency": ("import not_installed_anywhere", "not_installed_anywhere"),
    "an exit while importing": ("raise SystemExit(3)", "SystemExit: 3"),
    "a misspelt hook": (GOOD.replace("xlm_objectives", "xlm_objectivs"), "xlm_objectivs"),
    "a wrong argument": (GOOD.replace("xlm_objectives()", "xlm_objectives(x)"), "xlm_objectives"),
    "a wrong return type": (
        GOOD.replace("return [", "return ['good'] + ["),
        "Component was expected",
    ),
    "no list": (GOOD.replace("return [", "return 3 # "), "not iterable"),
    "undeclared options": (
        GOOD.replace("summary=", "options=Bare, summary=")
        + "\nimport dataclasses\n@dataclasses.dataclass\nclass Bare:\n    x: int = 1\n",
        "must be declared with option",
    ),
}


def state_of(plugins: Plugins, distribution: str) -> PluginState:
    (found,) = [state for state in plugins.states if state.distribution == distribution]
    return found


@pytest.fixture(params=FAULTS, ids=str)
def fault(request: pytest.FixtureRequest) -> tuple[str, str]:
    return FAULTS[request.param]


def test_a_good_plugin_brings_its_component(install: Install) -> None:
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


def test_asking_for_what_it_would_have_brought_tells_the_cause(
    install: Install, fault: tuple[str, str]
) -> None:
    source, cause = fault
    install("xlm-bad", source)
    with pytest.raises(PluginError) as error:
        Plugins.discover().get("objective", "bad")
    assert "xlm-bad 1.0" in str(error.value)
    assert cause in str(error.value)


def test_a_disabled_plugin_is_not_even_imported(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("xlm-bad", "raise RuntimeError('imported')")
    monkeypatch.setenv("XLM_DISABLE_PLUGINS", "xlm-other,xlm-bad")
    assert state_of(Plugins.discover(), "xlm-bad").state == "disabled"


@pytest.mark.parametrize("requirement", ["xlm-plugins>=9", "XLM_Plugins<0.1"])
def test_a_plugin_for_another_core_is_told_by_name_and_version(
    install: Install, requirement: str
) -> None:
    install("xlm-new", GOOD, requires=requirement)
    state = state_of(Plugins.discover(), "xlm-new")
    assert state.state == "broken"
    assert requirement in state.cause


def test_two_plugins_of_one_name_are_both_kept(install: Install) -> None:
    install("xlm-one", GOOD)
    install("xlm-two", GOOD)
    plugins = Plugins.discover()
    with pytest.raises(PluginError, match=r"xlm-one 1\.0 and xlm-two 1\.0"):
        plugins.get("objective", "good")
    assert plugins.get("objective", "xlm-two/good").distribution == "xlm-two"


def test_an_unreadable_list_of_entry_points_stops_nobody(install: Install) -> None:
    site = install("xlm-odd", GOOD)
    (site / "xlm_odd-1.0.dist-info" / "entry_points.txt").write_bytes(b"\xff\xfe[xlm\nno =")
    install("xlm-good", GOOD)
    assert Plugins.discover().get("objective", "good")
