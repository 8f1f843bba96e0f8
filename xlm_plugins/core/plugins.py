"""Discovery: find the installed plugins, and keep a broken one from breaking anything else."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.metadata import Distribution, EntryPoint
from typing import TYPE_CHECKING, Any

import pluggy

from xlm_plugins.core.admission import (
    check_core_version,
    components_of,
    entry_points,
    new_manager,
)
from xlm_plugins.core.catalogue import distribution_of
from xlm_plugins.core.errors import PluginError
from xlm_plugins.core.plugin_faults import DISABLE_VARIABLE, Fault, canonical, explain
from xlm_plugins.core.registry import Component, Registry

if TYPE_CHECKING:
    import click

__all__ = ["PluginState", "Plugins", "new_manager", "require"]
_FAULTS = (Exception, SystemExit)
"""What a plugin may raise without stopping the program: everything but the user's interrupt."""


@dataclass(frozen=True)
class PluginState:
    """One entry point: what it provides, or why it provides nothing.

    ``state`` is ``ok``, ``disabled`` or ``broken``; ``cause`` and ``remedy``, the hint, are
    empty if it is ``ok``.  `Registry.conflict` reports components that clash with others.
    """

    name: str
    distribution: str
    version: str
    state: str
    components: tuple[Component, ...] = ()
    cause: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"

    def may_provide(self, name: str) -> bool:
        """Whether a component of this name may be this plugin's, judging by the plugin's names."""
        distribution, _, _ = name.rpartition("/")
        own = canonical(self.distribution)
        if distribution:
            return canonical(distribution) == own
        return canonical(name) in (own, own.removeprefix("xlm-"), canonical(self.name))


@dataclass
class Plugins:
    """The installed plugins: their states, components and hooks.

    An object, never a module global: tests and programs that embed this package make their own.

    :param unmatched: names in XLM_DISABLE_PLUGINS that match no plugin.
    :param strict: a hook that fails during a run ends the run.
    """

    manager: pluggy.PluginManager
    registry: Registry = field(default_factory=Registry)
    states: list[PluginState] = field(default_factory=list)
    unmatched: tuple[str, ...] = ()
    strict: bool = False

    @classmethod
    def discover(cls) -> Plugins:
        """Find all entry points of the group ``xlm``, except those named in XLM_DISABLE_PLUGINS."""
        plugins = cls(new_manager())
        named = [name.strip() for name in os.environ.get(DISABLE_VARIABLE, "").split(",")]
        disabled = {canonical(name): name for name in named if name}
        matched = set()
        for entry_point, distribution in entry_points():
            names = {canonical(distribution.name), canonical(entry_point.name)}
            plugins._add(entry_point, distribution, disabled=bool(names & disabled.keys()))
            matched |= names
        plugins.unmatched = tuple(disabled[name] for name in disabled if name not in matched)
        return plugins

    def get(self, kind: str, name: str) -> Component:
        """Look up a component by name.

        :raises PluginError: none or several have the name; the error mentions broken and disabled
            plugins that may have provided it.
        """
        try:
            return self.registry.get(kind, name)
        except PluginError as error:
            if self.registry.named(kind, name):
                raise
            raise self.explain_unknown(name, error) from error

    def explain_unknown(self, name: str, error: PluginError) -> PluginError:
        """An error about an unknown name, with the plugins that may have provided it."""
        for state in self.states:
            if state.state != "ok" and state.may_provide(name):
                problem = f"{error.problem}: {state} is {state.state}: {state.cause}"
                return PluginError(problem, expected=error.expected, remedy=state.remedy)
        causes = "; ".join(f"{state}: {state.cause}" for state in self.broken())
        note = f"note: broken plugins may have provided it: {causes}" if causes else ""
        remedy = "\n".join(line for line in (error.remedy, note) if line)
        return PluginError(error.problem, expected=error.expected, remedy=remedy)

    def commands(self, taken: Collection[str]) -> dict[str, click.Command]:
        """The commands that plugins add; a plugin that fails adds none and counts as broken.

        :param taken: the names of the core's own commands.
        """
        import click

        found: dict[str, click.Command] = {}
        owners = dict.fromkeys(taken, "the core")
        for implementation in self.manager.hook.xlm_commands.get_hookimpls():
            alone = click.Group()
            try:
                implementation.function(*(alone for _ in implementation.argnames))
                _check_free(alone.commands, owners)
            except _FAULTS as error:
                self._mark_broken(implementation.plugin, "xlm_commands", error)
                continue
            owner = str(implementation.plugin_name).partition(":")[0]
            owners |= dict.fromkeys(alone.commands, owner)
            found |= alone.commands
        return found

    def call(self, hook: str, **arguments: Any) -> list[str]:
        """Call a hook that returns nothing; a plugin that fails is broken and not called again.

        :returns: one line about each plugin that failed.
        :raises PluginError: one failed, and ``strict`` is set.
        """
        failures = []
        for implementation in getattr(self.manager.hook, hook).get_hookimpls():
            try:
                implementation.function(*(arguments[name] for name in implementation.argnames))
            except _FAULTS as error:
                state = self._mark_broken(implementation.plugin, hook, error)
                if self.strict:
                    raise PluginError(
                        f"the plugin {state} failed: {state.cause}", remedy=state.remedy
                    ) from error
                failures.append(f"{state}: {state.cause}")
                self.manager.unregister(implementation.plugin)
        return failures

    def hooks_of(self, state: PluginState) -> list[str]:
        """The hooks that a plugin implements."""
        module = self.manager.get_plugin(f"{state.distribution}:{state.name}")
        return [caller.name for caller in self.manager.get_hookcallers(module) or ()]

    def broken(self) -> list[PluginState]:
        """The plugins that cannot be used, or only in part."""
        return [state for state in self.states if state.state == "broken"]

    def faults(self) -> list[str]:
        """What is broken or in conflict, each with cause and hint, as text."""
        found = []
        for state in self.states:
            if state.state == "broken":
                fault = Fault(state.cause, state.remedy)
                found.append(_described(f"{state} ({state.name}) is broken", fault))
            for component in state.components:
                if conflict := self.registry.conflict(component):
                    what = f"the {component.kind} {component.name!r} of {state} is in conflict"
                    found.append(_described(what, conflict))
        return found

    def refuse_faults(self) -> None:
        """Set ``strict``, and refuse broken and conflicting plugins.

        :raises PluginError: there are some; the error names them all.
        """
        self.strict = True
        if faults := self.faults():
            raise PluginError(
                "\n".join(["with --strict-plugins no plugin may be broken or in conflict", *faults])
            )

    def _mark_broken(self, module: object, hook: str, error: BaseException) -> PluginState:
        """Record that a plugin failed in a hook."""
        distribution, _, name = str(self.manager.get_name(module)).partition(":")
        (index,) = (
            index
            for index, state in enumerate(self.states)
            if (state.distribution, state.name) == (distribution, name)
        )
        fault = explain(error, distribution, getattr(module, "__name__", ""))
        self.states[index] = replace(
            self.states[index],
            state="broken",
            cause=f"in {hook}: {fault.cause}",
            remedy=fault.remedy,
        )
        return self.states[index]

    def _add(self, entry_point: EntryPoint, dist: Distribution, *, disabled: bool) -> None:
        state = PluginState(entry_point.name, dist.name, dist.version, "ok")
        try:
            if disabled:
                cause = f"{DISABLE_VARIABLE} names it"
                remedy = f"remove it from {DISABLE_VARIABLE}"
                state = replace(state, state="disabled", cause=cause, remedy=remedy)
            else:
                check_core_version(dist.name)
                module = import_module(entry_point.module)
                components = components_of(module, dist.name, dist.version)
                self._check_new(module, components)
                self.manager.register(module, name=f"{dist.name}:{entry_point.name}")
                for component in components:
                    self.registry.add(component)
                state = replace(state, components=components)
        except _FAULTS as error:
            fault = explain(error, dist.name, entry_point.value)
            state = replace(state, state="broken", cause=fault.cause, remedy=fault.remedy)
        self.states.append(state)

    def _check_new(self, module: object, components: Iterable[Component]) -> None:
        """Refuse what exists already: no full name would distinguish the two."""
        if other := self.manager.get_name(module):
            raise PluginError(
                f"its module {getattr(module, '__name__', '')!r} is also that of {other}",
                remedy="keep one of the two, and uninstall the other",
            )
        for component in components:
            if self.registry.named(component.kind, component.full_name):
                raise PluginError(
                    f"{component.distribution} already provides the {component.kind} "
                    f"{component.name!r} by another entry point",
                )


def _check_free(names: Iterable[str], owners: dict[str, str]) -> None:
    for name in names:
        if owner := owners.get(name):
            raise PluginError(
                f"it adds the command {name!r}, which {owner} already provides",
                remedy=""
                if owner == "the core"
                else f"disable one of the two: {DISABLE_VARIABLE}={owner}",
            )


def _described(what: str, fault: Fault) -> str:
    return f"{what}\n  {fault.cause}\n  hint: {fault.remedy}"


def require(needed: Iterable[tuple[str, str]], plugins: Plugins) -> None:
    """Refuse with one command what needs several built-in plugins that are not installed.

    A single one, and any other reason why there is no such component, is told by `Plugins.get`.

    :param needed: kind and name of each component.
    :raises PluginError: two or more of them are missing.
    """
    missing = {
        f"the {kind} {name!r}": distribution
        for kind, name in needed
        if (distribution := distribution_of(kind, name))
        and not plugins.registry.named(kind, name)
        and not any(state.may_provide(name) for state in plugins.states)
    }
    if len(missing) < 2:
        return
    *first, last = missing
    raise PluginError(
        f"no installed plugin provides {', '.join(first)} and {last}",
        remedy=f"pip install {' '.join(dict.fromkeys(missing.values()))}\n"
        "all built-in plugins: pip install 'xlm-plugins[all]'",
    )
