"""Components: what plugins contribute, and how they are looked up by name.

A `Component` is a light description; the class behind it (and with it torch) is imported only
when the component is selected.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from xlm_plugins.core.errors import PluginError
from xlm_plugins.core.options import build, fields_of

KINDS = ("objective", "layer", "tokenizer")


@dataclass(frozen=True)
class NoOptions:
    """The options of a component that has none."""


@dataclass(frozen=True)
class Component:
    """One thing that a plugin contributes.

    :param name: what users type, such as ``tlm``; it also prefixes the options (``--tlm.x``).
    :param target: ``package.module:Class``, imported when the component is built.
    :param options: a dataclass of `option` fields.
    :param summary: one line for ``xlm plugins``.

    Discovery adds the rest: ``kind``, ``distribution`` and ``version``.
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
        """``distribution/name``, which stays unambiguous when two plugins share a name."""
        return f"{self.distribution}/{self.name}"

    def load(self) -> Any:
        """Import the class behind the component.

        :raises PluginError: the import failed; the cause is chained and named.
        """
        module, _, attribute = self.target.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except Exception as error:
            raise PluginError(
                f"{self.kind} {self.name!r} of {self.distribution} {self.version} cannot be "
                f"loaded from {self.target!r}: {type(error).__name__}: {error}",
                remedy=f"repair or upgrade it: pip install --upgrade {self.distribution}",
            ) from error

    def options_from(self, values: dict[str, Any]) -> Any:
        """The component's options object, checked, from TOML or flag values."""
        return build(self.options, values, self.name)


class Registry:
    """The components that the plugins brought, by kind and name."""

    def __init__(self, components: Iterable[Component] = ()) -> None:
        self._components: list[Component] = []
        for component in components:
            self.add(component)

    def add(self, component: Component) -> None:
        """Take a component in.  Two of one name are both kept: only `get` must choose."""
        if component.kind not in KINDS:
            raise TypeError(f"a component's kind is one of {KINDS}, not {component.kind!r}")
        fields_of(component.options)  # an undeclarable option is found here, not at first use
        self._components.append(component)

    def of(self, kind: str) -> list[Component]:
        """All components of a kind, by name."""
        return sorted((c for c in self._components if c.kind == kind), key=lambda c: c.full_name)

    def get(self, kind: str, name: str) -> Component:
        """The component of that kind called ``name`` or ``distribution/name``.

        :raises PluginError: none or several have the name.
        """
        found = [c for c in self.of(kind) if name in (c.name, c.full_name)]
        if len(found) == 1:
            return found[0]
        if found:
            owners = " and ".join(f"{c.distribution} {c.version}" for c in found)
            raise PluginError(
                f"two plugins bring the {kind} {name!r}: {owners}",
                remedy=f"write the full name, such as {found[0].full_name!r}, or leave one out: "
                f"XLM_DISABLE_PLUGINS={found[-1].distribution}",
            )
        names = [c.name for c in self.of(kind)]
        close = difflib.get_close_matches(name, names, n=3)
        raise PluginError(
            f"no installed plugin brings the {kind} {name!r}",
            expected=f"one of {', '.join(names)}" if names else f"a plugin that brings the {kind}",
            remedy=f"did you mean {' or '.join(close)}?"
            if close
            else f"plugins are named xlm-NAME by convention: pip install xlm-{name}; "
            "`xlm plugins` lists what is installed and what is broken",
        )


def with_origin(component: Component, kind: str, distribution: str, version: str) -> Component:
    """The component as discovery completes it."""
    return dataclasses.replace(component, kind=kind, distribution=distribution, version=version)
