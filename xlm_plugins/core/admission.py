"""Which plugins are installed, and the checks that each must pass to be used."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from importlib.metadata import Distribution, EntryPoint, distributions
from types import ModuleType
from typing import Any

import pluggy

from xlm_plugins.core import hookspecs
from xlm_plugins.core.errors import PluginError
from xlm_plugins.core.options import fields_of
from xlm_plugins.core.plugin_faults import AuthorError, canonical, nearest, requirements
from xlm_plugins.core.registry import KINDS, Component, with_origin

ENTRY_POINT_GROUP = "xlm"
CORE_DISTRIBUTION = "xlm-plugins"
HOOKS = {
    name: tuple(inspect.signature(function).parameters)
    for name, function in vars(hookspecs).items()
    if name.startswith("xlm_")
}
"""Each hook's arguments."""


def entry_points() -> list[tuple[EntryPoint, Distribution]]:
    """All plugins' entry points, each with the distribution that declares it, sorted by name.

    If two distributions have the same name, the first on the path counts, as it does for imports.
    """
    first: dict[str, Distribution] = {}
    for distribution in distributions():
        if _declared_by(distribution):
            first.setdefault(canonical(distribution.name), distribution)
    return [(e, first[name]) for name in sorted(first) for e in _declared_by(first[name])]


def new_manager() -> pluggy.PluginManager:
    """A plugin manager that knows the hook specifications and no plugin."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def check_core_version(distribution: str) -> None:
    """Check that a plugin's own requirements allow this version of the core.

    :raises PluginError: it was built for another version.
    """
    from xlm_plugins import __version__

    for requirement in requirements(distribution):
        if canonical(requirement.name) != CORE_DISTRIBUTION:
            continue
        if not requirement.specifier.contains(__version__, prereleases=True):
            raise PluginError(
                f"it was built for {requirement}, but {CORE_DISTRIBUTION} {__version__} is "
                "installed",
                remedy=f"upgrade it, pip install --upgrade {distribution}, or install the core "
                f"that it was built for, pip install '{requirement}'",
            )


def components_of(module: ModuleType, distribution: str, version: str) -> tuple[Component, ...]:
    """The components of one plugin, asked on its own so that its faults are not blamed on others.

    :raises AuthorError: an unknown hook or hook argument, a return value of the wrong type, or a
        component that could not be used.
    :raises Exception: whatever the plugin raises.
    """
    manager = new_manager()
    _check_hooks(module, manager)
    manager.register(module)
    found: list[Component] = []
    for kind in KINDS:
        for implementation in getattr(manager.hook, f"xlm_{kind}s").get_hookimpls():
            for item in _answer(implementation.function(), kind):
                _check_component(item, kind, found)
                found.append(with_origin(item, kind, distribution, version))
    return tuple(found)


def _check_hooks(module: ModuleType, manager: pluggy.PluginManager) -> None:
    for name in dir(module):
        options = manager.parse_hookimpl_opts(module, name)
        if options is None:
            if name in HOOKS and inspect.isfunction(getattr(module, name)):
                raise AuthorError(
                    f"{name} has the name of a hook, but lacks @hookimpl",
                    remedy=f"put @hookimpl before def {name}",
                )
            continue
        hook = options.get("specname") or name
        if hook not in HOOKS:
            raise AuthorError(
                f"it implements {hook}, but there is no such hook",
                expected=f"one of {', '.join(HOOKS)}",
                remedy=nearest(hook, HOOKS) or "remove it",
            )
        _check_arguments(hook, getattr(module, name))


def _check_arguments(hook: str, function: Any) -> None:
    parameters = inspect.signature(function).parameters.values()
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    unknown = [p.name for p in named if p.default is p.empty and p.name not in HOOKS[hook]]
    if unknown:
        raise AuthorError(
            f"its {hook}({', '.join(p.name for p in named)}) has parameters that the hook is not "
            f"called with: {', '.join(unknown)}",
            expected=f"{hook}({', '.join(HOOKS[hook])})",
            remedy="use these parameters, or fewer of them",
        )


def _answer(answer: Any, kind: str) -> Iterable[Any]:
    if isinstance(answer, str) or not isinstance(answer, Iterable):
        raise AuthorError(
            f"its xlm_{kind}s returned {answer!r}",
            expected="a list of Components",
            remedy="return [Component(...)]",
        )
    return answer


def _check_component(item: Any, kind: str, others: Iterable[Component]) -> None:
    if not isinstance(item, Component):
        raise AuthorError(
            f"its xlm_{kind}s returned {item!r} in its list",
            expected="only Components",
            remedy="return [Component(...)]",
        )
    where = f"its {kind} {item.name!r}"
    if not re.fullmatch(r"[\w.-]+", item.name):
        raise AuthorError(
            f"{where} has a name that cannot be selected",
            expected="letters, digits, dots, dashes and underscores",
            remedy="rename it",
        )
    if any((kind, item.name) == (other.kind, other.name) for other in others):
        raise AuthorError(f"it provides the {kind} {item.name!r} twice", remedy="rename one")
    if not re.fullmatch(r"\w+(\.\w+)*:\w+", item.target):
        raise AuthorError(
            f"{where} has the target {item.target!r}",
            expected="module:Class, such as xlm_pkm.layer:ProductKeyMemory",
            remedy="write the target in this form",
        )
    try:
        fields_of(item.options)
    except TypeError as error:
        raise AuthorError(
            f"{where} has options that cannot be used: {error}",
            remedy="declare them as a frozen dataclass of option(...) fields, each with its own "
            "flag",
        ) from error


def _declared_by(distribution: Distribution) -> list[EntryPoint]:
    """A distribution's plugins; none if its metadata cannot be read at all."""
    try:
        found = [e for e in distribution.entry_points if e.group == ENTRY_POINT_GROUP]
        return found if found and distribution.name and distribution.version else []
    except Exception:  # any installed distribution; most have nothing to do with us
        return []
