"""What is wrong with a plugin, described so that its user or its author can fix it."""

from __future__ import annotations

import difflib
import re
import shlex
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import requires, version
from pathlib import Path
from typing import TYPE_CHECKING

from xlm_plugins.core.errors import PluginError, XLMError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

DISABLE_VARIABLE = "XLM_DISABLE_PLUGINS"


@dataclass(frozen=True)
class Fault:
    """The cause, and a hint."""

    cause: str
    remedy: str


class AuthorError(PluginError):
    """A fault in a plugin's code: ``remedy`` is for its author; `explain` adds one for users."""


def explain(error: BaseException, distribution: str, module: str) -> Fault:
    """Cause and hint of an error that a plugin raised.

    :param distribution: the plugin's.
    :param module: the module that was imported or called; its package is the plugin's own.
    """
    if isinstance(error, XLMError):
        cause = error.problem + (f"; expected {error.expected}" if error.expected else "")
        if isinstance(error, AuthorError):
            remedy = f"in its code: {error.remedy}; for its users: {_replace_it(distribution)}"
            return Fault(cause, remedy)
        return Fault(cause, error.remedy or _replace_it(distribution))
    missing = error.name if isinstance(error, ImportError) and error.name else ""
    if _package(missing) == "xlm_plugins":
        return Fault(
            f"it was built for another version of xlm-plugins: {error}",
            f"pip install --upgrade xlm-plugins {distribution}",
        )
    if isinstance(error, ModuleNotFoundError) and missing:
        return _missing_module(missing, distribution, module)
    place = "" if isinstance(error, SyntaxError) else _place(error, module)
    return Fault(f"{type(error).__name__}: {error}{place}", _replace_it(distribution))


def nearest(name: str, known: Iterable[str]) -> str:
    """``did you mean this or that?``, or nothing if no known name is similar."""
    close = difflib.get_close_matches(name, list(known), n=3)
    return f"did you mean {' or '.join(close)}?" if close else ""


def canonical(name: str) -> str:
    """A distribution's name as package indexes normalise it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(distribution: str) -> list[Requirement]:
    """The requirements of a distribution in this environment, without extras."""
    from packaging.requirements import Requirement

    every = [Requirement(text) for text in requires(distribution) or ()]
    return [one for one in every if one.marker is None or one.marker.evaluate({"extra": ""})]


def _missing_module(missing: str, distribution: str, module: str) -> Fault:
    package = _package(missing)
    if package == _package(module):
        return Fault(
            f"its own module {missing!r} is missing",
            f"pip install --force-reinstall {distribution}; its author: name an existing module",
        )
    cause = f"it needs the module {missing!r}, which is not installed"
    if unmet := _unmet(distribution):
        return Fault(cause, f"pip install {' '.join(unmet)}")
    # No command: the name of a module says nothing about who owns that name on a package index.
    return Fault(cause, f"{distribution} does not declare it: ask its author what provides it")


def _unmet(distribution: str) -> list[str]:
    """The declared requirements that are not satisfied, quoted for a shell."""
    try:
        declared = requirements(distribution)
    except Exception:  # damaged metadata: the fault to report is another one
        return []
    return [shlex.quote(f"{one.name}{one.specifier}") for one in declared if not _is_met(one)]


def _is_met(requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(version(requirement.name), prereleases=True)
    except Exception:  # not installed, or its metadata is damaged
        return False


def _place(error: BaseException, module: str) -> str:
    """File and line in the plugin's code that an error came from."""
    package = _package(module)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        names = path.with_suffix("").parts
        if package in names:
            shown = "/".join(path.parts[names.index(package) :])
            return f" ({shown}, line {frame.lineno})"
    return ""


def _replace_it(distribution: str) -> str:
    upgrade = f"pip install --upgrade {distribution}"
    return f"{upgrade}, or leave it out: {DISABLE_VARIABLE}={distribution}"


def _package(module: str) -> str:
    return module.partition(":")[0].partition(".")[0]
