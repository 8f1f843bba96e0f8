"""What components of every kind promise: names, options that can be written, a quick start."""

from __future__ import annotations

import dataclasses
import functools
import os
import pickle
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from typing import Any

from xlm_plugins.core.options import fields_of, to_mapping
from xlm_plugins.core.plugins import Plugins, new_manager
from xlm_plugins.core.registry import Component
from xlm_plugins.core.selection import LayerSelection, ObjectiveSelection
from xlm_plugins.testing.option_values import as_flags, changed
from xlm_plugins.testing.promises import demand, promise


@dataclass(frozen=True)
class ComponentCase:
    """A component under test.

    :param options: the options object to test it with.
    :param module: the module that its distribution's entry point names; None if the component is
        not installed.
    """

    component: Component
    options: Any
    module: str | None


@promise("the name that users type has letters, digits and ``_ . / -`` only", "Component")
def has_a_name_that_can_be_typed(case: ComponentCase) -> None:
    name = case.component.name
    if case.component.kind == "layer":
        read = LayerSelection.parse(name).name
    else:
        read = ObjectiveSelection.parse(name).name
    demand(read == name, f"{name!r}, which is read as {read!r}")


@promise("the summary is one line for `xlm plugins`", "Component")
def has_a_summary(case: ComponentCase) -> None:
    summary = case.component.summary
    demand(bool(summary.strip()) and "\n" not in summary, f"the summary {summary!r}")


@promise("the entry point's module and its hooks do not import torch", "Component")
def starts_without_torch(case: ComponentCase) -> None:
    if case.module is not None:
        found = _imports_torch(case.module, f"xlm_{case.component.kind}s")
        demand(not found, f"in a new process {case.module} {found}")


@functools.cache
def _imports_torch(module: str, hook: str) -> str:
    """What is wrong when a new process imports a module; empty if nothing is."""
    script = (
        "import importlib, sys\n"
        "getattr(importlib.import_module(sys.argv[1]), sys.argv[2], list)()\n"
        "print('torch' in sys.modules)"
    )
    process = subprocess.run(
        [sys.executable, "-c", script, module, hook],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    if process.returncode:
        return f"fails: {process.stderr.strip().splitlines()[-1]}"
    return "imports torch" if process.stdout.split()[-1] == "True" else ""


@promise("the target is a class of the contract, without abstract methods", "Component.load")
def loads_a_class_of_its_contract(case: ComponentCase) -> None:
    found = case.component.load()
    missing = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
    demand(not missing, f"{found.__name__} lacks {missing}")


@promise("an option that may be None is None by default: TOML cannot express it", "option")
def leaves_out_what_is_none(case: ComponentCase) -> None:
    for field in fields_of(case.component.options):
        fine = not field.optional or field.default is None
        demand(fine, f"{field.name} may be None, but is {field.default!r} by default")


@promise("options with equal values are equal, hash equally, and can be pickled", "option")
def has_options_that_are_values(case: ComponentCase) -> None:
    copy = dataclasses.replace(case.options)
    demand(copy == case.options, f"{copy} is not equal to {case.options}")
    demand(hash(copy) == hash(case.options), "equal options have different hashes")
    demand(pickle.loads(pickle.dumps(copy)) == copy, f"{copy} is different when unpickled")


@promise("options do not change when they are written to TOML and read", "option")
def has_options_that_travel_by_toml(case: ComponentCase) -> None:
    import tomli_w

    for written in (case.options, changed(case.options, case.component.name)):
        text = tomli_w.dumps(to_mapping(written))
        read = case.component.options_from(tomllib.loads(text))
        _demand_equal(written, read, f"by the TOML {text.split()}")


@promise("options do not change when they are given as flags", "option")
def has_options_that_travel_by_flags(case: ComponentCase) -> None:
    for written in (case.options, changed(case.options, case.component.name)):
        flags = as_flags(written, f"{case.component.name}.")
        values = _given(case.component, flags)
        _demand_equal(written, case.component.options_from(values), f"by {' '.join(flags)}")


def _given(component: Component, flags: list[str]) -> dict[str, Any]:
    """The values of a component's flags, as the command line parses them."""
    import click

    from xlm_plugins.cli.main import Session
    from xlm_plugins.cli.options import Section, SectionedCommand, given

    found: dict[str, Any] = {}

    @click.command(cls=SectionedCommand, core=[Section.of(component, component.name)])
    @click.pass_context
    def command(context: click.Context) -> None:
        found.update(given(context).get(component.name, {}))

    command.main(flags, standalone_mode=False, obj=Session(Plugins(new_manager())))
    return found


def _demand_equal(written: Any, read: Any, way: str) -> None:
    for field in fields_of(type(written)):
        before, after = getattr(written, field.name), getattr(read, field.name)
        demand(before == after, f"{field.name} = {before!r} became {after!r} {way}")


PROMISES = (
    has_a_name_that_can_be_typed,
    has_a_summary,
    starts_without_torch,
    loads_a_class_of_its_contract,
    leaves_out_what_is_none,
    has_options_that_are_values,
    has_options_that_travel_by_toml,
    has_options_that_travel_by_flags,
)
