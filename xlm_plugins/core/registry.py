"""Components: what plugins contribute, and how they are looked up by name.

A `Component` is a description that is cheap to make; the class behind it (and with it torch) is
imported only when the component is selected.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from xlm_plugins.core.catalogue import distribution_of
from xlm_plugins.core.errors import PluginError
from xlm_plugins.core.messages import LOG
from xlm_plugins.core.options import build, fields_of
from xlm_plugins.core.plugin_faults import DISABLE_VARIABLE, AuthorError, Fault, explain, nearest

KINDS = ("objective", "layer", "tokenizer", "task")
RESERVED_NAMES = ("model", "optimizer", "train", "finetune", "generation")
"""Sections of the core's own options; a component of such a name is selected by its full name."""


@dataclass(frozen=True)
class NoOptions:
    """For components without options."""


@dataclass(frozen=True)
class Component:
    """One thing that a plugin contributes.

    :param name: what users type, such as ``tlm``; also the prefix of its options (``--tlm.x``).
    :param target: ``package.module:Class``, imported when the component is selected.
    :param options: a dataclass of `option` fields.
    :param summary: one line for ``xlm plugins``.

    Discovery fills in ``kind``, ``distribution`` and ``version``.
    """

    name: str
    target: str
    options: type = NoOptions
    summary: str = ""
    kind: str = ""
    distribution: str = ""
    version: str = ""

    @property
    def full_name(self) -> str:
        """``distribution/name``, which is unambiguous even if two plugins use the same name."""
        return f"{self.distribution}/{self.name}"

    def load(self) -> Any:
        """Import the class behind the component.

        :raises PluginError: the import failed, or there is no such class of the component's kind.
        """
        module, _, name = self.target.partition(":")
        try:
            LOG.debug("importing %s for the %s %s", module, self.kind, self.name)
            return _class_of(importlib.import_module(module), name, self.kind)
        except (Exception, SystemExit) as error:
            fault = explain(error, self.distribution, module)
            raise PluginError(
                f"{self.kind} {self.name!r} of {self.distribution} {self.version} cannot be "
                f"loaded from {self.target!r}: {fault.cause}",
                remedy=fault.remedy,
            ) from error

    def options_from(self, values: dict[str, Any]) -> Any:
        """Make the component's options object from TOML or flag values, and check it."""
        return build(self.options, values, self.name)


class Registry:
    """The components of all plugins, by kind and name."""

    def __init__(self, components: Iterable[Component] = ()) -> None:
        self._components: list[Component] = []
        for component in components:
            self.add(component)

    def add(self, component: Component) -> None:
        """Add a component.  Two of one name are both kept: only `get` must choose."""
        if component.kind not in KINDS:
            raise TypeError(f"a component's kind is one of {KINDS}, not {component.kind!r}")
        fields_of(component.options)  # report an invalid option here, not at first use
        self._components.append(component)

    def of(self, kind: str) -> list[Component]:
        """All components of a kind, sorted by name."""
        return sorted((c for c in self._components if c.kind == kind), key=lambda c: c.full_name)

    def get(self, kind: str, name: str) -> Component:
        """The component of that kind called ``name`` or ``distribution/name``.

        :raises PluginError: none or several have the name.
        """
        found = self.named(kind, name)
        if len(found) == 1:
            return found[0]
        if found:
            owners = " and ".join(f"{c.distribution} {c.version}" for c in found)
            raise PluginError(
                f"several plugins provide the {kind} {name!r}: {owners}", remedy=_hint(found)
            )
        names = [c.name for c in self.of(kind)]
        listed = distribution_of(kind, name)
        raise PluginError(
            f"no installed plugin provides the {kind} {name!r}",
            expected=f"one of {', '.join(names)}" if names else "a plugin that provides it",
            remedy=(f"pip install {listed}" if listed else nearest(name, names))
            or "`xlm plugins` lists what is installed and what is broken",
        )

    def named(self, kind: str, name: str) -> list[Component]:
        """The components of a kind called ``name`` or ``distribution/name``."""
        return [c for c in self.of(kind) if name in (c.name, c.full_name)]

    def conflict(self, component: Component) -> Fault | None:
        """Why a component cannot be selected by its short name; None if it can."""
        kind, name = component.kind, component.name
        if name in RESERVED_NAMES:
            return Fault(
                f"[{name}] is a section of the core's own options",
                f"use its full name: --{kind} {component.full_name}; its author: rename it",
            )
        same = self.named(kind, name)
        others = [f"{c.distribution} {c.version}" for c in same if c != component]
        if not others:
            return None
        return Fault(f"the {kind} {name!r} is also provided by {' and '.join(others)}", _hint(same))


def _class_of(module: ModuleType, name: str, kind: str) -> Any:
    """The class that a target names.

    :raises AuthorError: it does not exist, or is not of the kind.
    """
    import xlm_plugins  # its public names include the contracts

    if not hasattr(module, name):
        remedy = nearest(name, vars(module)) or "define that class, or name another"
        raise AuthorError(f"{module.__name__} has no {name}", remedy=remedy)
    found, contract = getattr(module, name), getattr(xlm_plugins, kind.capitalize())
    if not (isinstance(found, type) and issubclass(found, contract)):
        remedy = f"derive it from xlm_plugins.{contract.__name__}"
        raise AuthorError(f"{name} is not a subclass of {contract.__name__}", remedy=remedy)
    return found


def _hint(same: list[Component]) -> str:
    """How to choose between components of one kind and name."""
    names = " or ".join(c.full_name for c in same)
    return f"use a full name, {names}, or disable one: {DISABLE_VARIABLE}={same[-1].distribution}"


def with_origin(component: Component, kind: str, distribution: str, version: str) -> Component:
    """A component with the fields that discovery fills in."""
    return dataclasses.replace(component, kind=kind, distribution=distribution, version=version)
