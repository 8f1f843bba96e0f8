"""What components of every kind promise: each promise has a component that breaks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from xlm_plugins import Component, Objective, OptionError, option
from xlm_plugins.core.options import fields_of
from xlm_plugins.core.registry import NoOptions, with_origin
from xlm_plugins.testing import BrokenPromiseError, check_layer, check_objective
from xlm_plugins.testing import component_promises as promises
from xlm_plugins.testing.option_values import as_flags, changed
from xlm_plugins.testing.promises import hold


@dataclass(frozen=True)
class EveryKind:
    """An option of every kind."""

    width: int = option(8, "a number", minimum=1, maximum=8)
    rate: float = option(0.5, "a share", above=0.0, maximum=1.0)
    name: str = option("", "a text")
    form: str = option("round", "one of two", choices=("round", "square"))
    fast: bool = option(True, "a switch")
    slow: bool = option(False, "another")
    depth: int | None = option(None, "a number, or nothing")
    sizes: tuple[int, ...] = option((), "numbers", minimum=3)
    words: tuple[str, ...] = option(("a",), "words", comma=True)
    small: int = option(2, "no more than `width`")
    fixed: int = option(1, "what can be nothing else", minimum=1, maximum=1)

    def __post_init__(self) -> None:
        if self.small > self.width:
            raise OptionError("small is more than width")


@dataclass(frozen=True)
class SetOnly:
    rate: float | None = option(0.5, "can be unset, but not in TOML")


@dataclass(frozen=True, eq=False)
class NoValues:
    rate: float = option(0.5, "a share")


@dataclass(frozen=True)
class Grows:
    width: int = option(4, "one more each time that it is read")

    def __post_init__(self) -> None:
        object.__setattr__(self, "width", self.width + 1)


@dataclass(frozen=True)
class BadDefault:
    width: int = option(0, "a number", minimum=1)


class Abstract(Objective):
    def layout(self, step):
        raise NotImplementedError


def component(options: type = NoOptions, **changes: str) -> Component:
    given = {"name": "x", "target": "xlm_plugins:Layer", "summary": "for a test", **changes}
    return with_origin(Component(options=options, **given), "layer", "d", "1")


def broken_by(component: Component) -> str:
    with pytest.raises(BrokenPromiseError) as error:
        check_layer(component)
    return error.value.promise


@pytest.mark.parametrize(
    ("component", "promise"),
    [
        (component(name="x:y"), "has_a_name_that_can_be_typed"),
        (component(name="two words"), "has_a_name_that_can_be_typed"),
        (component(summary=""), "has_a_summary"),
        (component(summary="one\ntwo"), "has_a_summary"),
        (component(target="no_such_module:X"), "loads_a_class_of_its_contract"),
        (component(target=f"{__name__}:EveryKind"), "loads_a_class_of_its_contract"),
        (component(SetOnly), "leaves_out_what_is_none"),
        (component(NoValues), "has_options_that_are_values"),
        (component(Grows), "has_options_that_are_values"),
        (component(BadDefault), "has_options_that_travel_by_toml"),
    ],
    ids=str,
)
def test_a_broken_promise_is_named(component: Component, promise: str) -> None:
    assert broken_by(component) == promise


def test_missing_methods_are_named() -> None:
    abstract = component(target=f"{__name__}:Abstract")
    with pytest.raises(BrokenPromiseError, match="Abstract lacks loss, make_batch"):
        check_objective(abstract)


@pytest.mark.parametrize(
    "promise", [promises.has_options_that_travel_by_toml, promises.has_options_that_travel_by_flags]
)
def test_options_that_change_when_they_are_written_are_named(promise: object) -> None:
    case = promises.ComponentCase(component(Grows), Grows(), None)
    with pytest.raises(BrokenPromiseError, match="width = 5 became 6"):
        hold("it", [promise], case)


def test_options_of_every_kind_can_be_written_and_read() -> None:
    case = promises.ComponentCase(component(EveryKind), EveryKind(), None)
    hold("it", promises.PROMISES, case)


def test_every_option_that_can_change_does() -> None:
    found = changed(EveryKind(), "x")
    same = {f.name for f in fields_of(EveryKind) if getattr(found, f.name) == f.default}
    assert same == {"fixed"}
    assert found.small <= found.width < 8
    assert min(found.sizes) >= 3
    flags = as_flags(EveryKind(fast=False, sizes=(3, 4)), "x.")
    assert {"--x.no-fast", "--x.no-slow", "--x.sizes=3", "--x.sizes=4"} <= set(flags)
    assert not [flag for flag in flags if "depth" in flag]


HEAVY = "import torch\nfrom xlm_plugins import Component, hookimpl\n"
LATE = "from xlm_plugins import Component, hookimpl\n"
HOOK = """
@hookimpl
def xlm_layers():
    {}
    return [Component("heavy", "xlm_plugins:Layer", summary="for a test")]
"""


@pytest.mark.parametrize("source", [HEAVY + HOOK.format(""), LATE + HOOK.format("import torch")])
def test_a_plugin_that_imports_torch_at_start_is_refused(
    install: Callable[..., Path], source: str
) -> None:
    name = f"xlm-heavy-{len(source)}"  # the imports of a module are checked once per process
    site = install(name, source)
    (site / "torch.py").write_text("")  # for the new process, which then starts faster
    with pytest.raises(BrokenPromiseError, match=r"xlm_heavy_\d+ imports torch") as error:
        check_layer("heavy")
    assert error.value.promise == "starts_without_torch"


def test_a_plugin_that_starts_without_torch_is_accepted(install: Callable[..., Path]) -> None:
    install("xlm-heavy", LATE + HOOK.format(""))
    with pytest.raises(BrokenPromiseError) as error:
        check_layer("heavy")  # its class is the contract itself, which has no forward
    assert error.value.promise == "keeps_shape_and_type"


def test_every_promise_has_a_test() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert [p.name for p in promises.PROMISES if p.name not in text] == []
