"""Discovery: find the installed plugins, and keep a broken one from breaking anything else."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.metadata import Distribution, EntryPoint, distributions
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pluggy

from xlm_plugins.core import hookspecs
from xlm_plugins.core.errors import PluginError
from xlm_plugins.core.registry import KINDS, Component, Registry, with_origin

if TYPE_CHECKING:
    import click

ENTRY_POINT_GROUP = "xlm"
CORE_DISTRIBUTION = "xlm-plugins"
DISABLE_VARIABLE = "XLM_DISABLE_PLUGINS"
_FAULTS = (Exception, SystemExit)
"""What a plugin may raise without stopping the program: all but the user's own interrupt."""


@dataclass(frozen=True)
class PluginState:
    """One entry point: what it brought, or why it brought nothing.

    ``state`` is ``ok``, ``disabled`` or ``broken``; ``cause`` is empty unless it is broken.
    """

    name: str
    distribution: str
    version: str
    state: str
    components: tuple[Component, ...] = ()
    cause: str = ""


@dataclass
class Plugins:
    """The installed plugins: their states, components and hooks.

    An object, never a module global: tests and embedders make their own.
    """

    manager: pluggy.PluginManager
    registry: Registry = field(default_factory=Registry)
    states: list[PluginState] = field(default_factory=list)

    @classmethod
    def discover(cls) -> Plugins:
        """All entry points of the group ``xlm``; names in XLM_DISABLE_PLUGINS stay out."""
        plugins = cls(new_manager())
        disabled = {name for name in os.environ.get(DISABLE_VARIABLE, "").split(",") if name}
        for entry_point, distribution in _entry_points():
            plugins._take_in(entry_point, distribution, disabled)
        return plugins

    def get(self, kind: str, name: str) -> Component:
        """Look a component up by name; the error tells of broken plugins as well.

        :raises PluginError: none or several have the name.
        """
        try:
            return self.registry.get(kind, name)
        except PluginError as error:
            if not self.broken():
                raise
            raise PluginError(
                error.problem,
                expected=error.expected,
                remedy=f"{error.remedy}\n{self.broken_note()}".strip(),
            ) from error

    def add_commands(self, cli: click.Group) -> None:
        """Let each plugin add its commands; one that fails adds none and is kept as broken."""
        for implementation in self.manager.hook.xlm_commands.get_hookimpls():
            commands = dict(cli.commands)
            try:
                implementation.function(*(cli for _ in implementation.argnames))
            except _FAULTS as error:
                cli.commands = commands
                self._mark_broken(implementation.plugin, f"in xlm_commands: {_cause(error)}")

    def call(self, hook: str, **arguments: Any) -> list[str]:
        """Call a hook that returns nothing; who fails is broken, and called no more.

        :returns: what there is to tell, a line for each that failed.
        """
        told = []
        for implementation in getattr(self.manager.hook, hook).get_hookimpls():
            try:
                implementation.function(*(arguments[name] for name in implementation.argnames))
            except _FAULTS as error:
                cause = f"in {hook}: {_cause(error)}"
                told.append(f"{implementation.plugin_name}: {cause}")
                self._mark_broken(implementation.plugin, cause)
                self.manager.unregister(implementation.plugin)
        return told

    def broken(self) -> list[PluginState]:
        """The plugins that cannot be used, or not wholly."""
        return [state for state in self.states if state.state == "broken"]

    def broken_note(self) -> str:
        """What to add to an error about something that a broken plugin may have brought."""
        causes = (f"{s.distribution} {s.version}: {s.cause}" for s in self.broken())
        return f"note: broken plugins may have brought it: {'; '.join(causes)}"

    def _mark_broken(self, module: object, cause: str) -> None:
        distribution, _, name = str(self.manager.get_name(module)).partition(":")
        for index, state in enumerate(self.states):
            if (state.distribution, state.name) == (distribution, name):
                self.states[index] = replace(state, state="broken", cause=cause)

    def _take_in(self, entry_point: EntryPoint, dist: Distribution, disabled: set[str]) -> None:
        name, version = dist.name, dist.version
        if {name, entry_point.name} & disabled:
            self.states.append(PluginState(entry_point.name, name, version, "disabled"))
            return
        try:
            _check_core_version(dist)
            module = import_module(entry_point.module)
            components = _components_of(module, name, version)
        except _FAULTS as error:
            state = PluginState(entry_point.name, name, version, "broken", (), _cause(error))
            self.states.append(state)
            return
        self.manager.register(module, name=f"{name}:{entry_point.name}")
        for component in components:
            self.registry.add(component)
        self.states.append(PluginState(entry_point.name, name, version, "ok", components))


def new_manager() -> pluggy.PluginManager:
    """A plugin manager that knows the hook specifications and no plugin."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def _entry_points() -> Iterable[tuple[EntryPoint, Distribution]]:
    """Each plugin's entry point once, with the distribution that declares it."""
    seen = set()
    for distribution in distributions():
        for entry_point in _declared_by(distribution):
            key = (distribution.name, entry_point.name)
            if key not in seen:
                seen.add(key)
                yield entry_point, distribution


def _declared_by(distribution: Distribution) -> list[EntryPoint]:
    """A distribution's plugins; none where its list of entry points cannot be read at all."""
    try:
        return [e for e in distribution.entry_points if e.group == ENTRY_POINT_GROUP]
    except Exception:  # any installed distribution, most have nothing to do with us
        return []


def _components_of(module: ModuleType, distribution: str, version: str) -> tuple[Component, ...]:
    """Ask one plugin alone, so that its faults are its own.

    :raises Exception: a misspelt hook, a wrong signature or return value, or the plugin's own.
    """
    trial = new_manager()
    trial.register(module)
    trial.check_pending()
    found = []
    for kind in KINDS:
        for answer in getattr(trial.hook, f"xlm_{kind}s")():
            found += [_checked(item, kind) for item in answer]
    return tuple(with_origin(c, kind, distribution, version) for c, kind in found)


def _checked(item: Any, kind: str) -> tuple[Component, str]:
    if not isinstance(item, Component):
        raise TypeError(f"xlm_{kind}s returned {item!r} where a Component was expected")
    Registry([with_origin(item, kind, "", "")])  # refuses undeclarable options
    return item, kind


def _check_core_version(distribution: Distribution) -> None:
    """Hold a plugin to the core versions that its own requirements name."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    for text in distribution.requires or ():
        requirement = Requirement(text)
        if canonicalize_name(requirement.name) != CORE_DISTRIBUTION:
            continue
        installed = Distribution.from_name(CORE_DISTRIBUTION).version
        if not requirement.specifier.contains(installed, prereleases=True):
            raise PluginError(
                f"it was built for {text}, and {CORE_DISTRIBUTION} {installed} is installed",
                remedy=f"pip install --upgrade {distribution.name}",
            )


def _cause(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
