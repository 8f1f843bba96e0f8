"""What a shell offers for a value: runs, languages, components, commands."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from xlm_plugins.runs.layout import CONFIG_NAME, MODEL_NAME

Offer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def runs(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The runs and bundles that begin so, here and in ``runs/``; else any path."""
    found = {
        marker.parent.as_posix()
        for pattern in (f"{incomplete}*", f"{incomplete}*/*", "runs/*")
        for name in (CONFIG_NAME, MODEL_NAME)
        for marker in _below(incomplete, f"{pattern}/{name}")
    }
    names = sorted(name for name in found if name.startswith(incomplete))
    return _items(names) or [CompletionItem(incomplete, type="file")]


def languages(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The languages of the RUN that the line names."""
    # An option without its value ends click's parsing, and leaves the arguments unread.
    unread = context.args[0] if context.args else ""
    run = Path(context.params.get("run") or unread)
    known: set[str] = set()
    for path in (*run.glob(MODEL_NAME), *run.glob(f"*/*/{MODEL_NAME}")):
        try:
            known |= set(json.loads(path.read_text("utf-8"))["languages"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # whatever is wrong with it is not for a shell to tell
    return _items(name for name in sorted(known) if name.startswith(incomplete))


def components(kind: str) -> Offer:
    """The installed components of a kind."""

    def offer(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
        names = (component.name for component in context.obj.plugins.registry.of(kind))
        return _items(name for name in names if name.startswith(incomplete))

    return offer


def commands(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The commands, and those of the group that the line names."""
    root = context.find_root()
    group = root.command
    for name in context.params.get(str(parameter.name)) or ():
        found = group.get_command(root, name) if isinstance(group, click.Group) else None
        group = found if found is not None else group
    names = group.list_commands(root) if isinstance(group, click.Group) else []
    return _items(name for name in names if name.startswith(incomplete))


run_argument = click.argument("run", metavar="RUN", shell_complete=runs)
"""Of commands that use a model."""


def _below(incomplete: str, pattern: str) -> Iterable[Path]:
    """The files that fit, of a path or of the folder here."""
    root = Path("/") if incomplete.startswith("/") else Path()
    try:
        return list(root.glob(pattern.lstrip("/")))
    except (OSError, ValueError, NotImplementedError):
        return []


def _items(names: Iterable[str]) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names]
