"""What a model was made with: the distribution and version that provided each component.

Every bundle of a run records them in ``plugins.json``: ``{"layer/pkm": "xlm-pkm 0.1.0", ...}``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xlm_plugins.core.catalogue import how_to_install
from xlm_plugins.core.errors import OptionError, PluginError
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.registry import Component

PLUGINS_NAME = "plugins.json"


def resolve_recorded(plugins: Plugins, kind: str, name: str, origin: str, what: str) -> Component:
    """The installed component that something was made with, whatever its version is now.

    :param name: its name or full name.
    :param origin: the distribution and version that it came from then.
    :param what: what was made with it, for error messages: ``the model``.
    :raises PluginError: it is missing or cannot be used.
    """
    try:
        return plugins.get(kind, name)
    except PluginError as error:
        short = name.rpartition("/")[2]
        problem = f"{what} was made with the {kind} {short!r} of {origin}: {error.problem}"
        # What keeps an installed one from being used has its own hint.
        present = any(s.state == "disabled" and s.may_provide(name) for s in plugins.states)
        present = present or bool(plugins.registry.named(kind, name))
        remedy = error.remedy if present else how_to_install(origin)
        raise PluginError(problem, remedy=remedy) from error


def resolve_options(component: Component, values: dict[str, Any], origin: str, what: str) -> Any:
    """The options that something was made with, as the installed version reads them.

    :raises PluginError: another version is installed, and refuses them.
    :raises OptionError: the same version is installed, so they were changed.
    """
    try:
        return component.options_from(values)
    except OptionError as error:
        installed = f"{component.distribution} {component.version}"
        if origin == installed:
            raise
        problem = f"{what} was made with {origin}, but {installed} is installed: {error.problem}"
        raise PluginError(problem, remedy=how_to_install(origin, component.distribution)) from error


def recorded_plugins(run: Path) -> Mapping[str, str]:
    """What the newest bundle of a run records; empty if there is none that can be read."""
    found = sorted(run.glob(f"*/*/{PLUGINS_NAME}"), key=lambda path: path.stat().st_mtime)
    try:
        recorded = json.loads(found[-1].read_text(encoding="utf-8"))
        return {str(key): str(origin) for key, origin in recorded.items()}
    except (IndexError, OSError, ValueError, AttributeError):
        return {}
