"""``xlm plugins``: list what is installed, and what is broken and why; ``new`` creates one."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import entry_points

import click

from xlm_plugins.cli.lazy import LazyGroup
from xlm_plugins.core.admission import CORE_DISTRIBUTION
from xlm_plugins.core.messages import warn
from xlm_plugins.core.plugin_faults import DISABLE_VARIABLE
from xlm_plugins.core.plugins import Plugins, PluginState

UNBOUNDED = 1000
"""Columns if standard output is not a terminal: the reader of a pipe needs whole lines."""

COMMANDS = {"new": ("new_plugin:new", "Create the project of a new plugin, with passing tests.")}


@dataclass(frozen=True)
class Row:
    """One component, or a plugin without any, whose summary then names its hooks.

    ``state`` is ``ok``, ``disabled``, ``broken`` or ``conflict``; all but ``ok`` have a ``cause``
    and a ``remedy``.
    """

    name: str
    kind: str
    distribution: str
    version: str
    summary: str
    state: str
    cause: str
    remedy: str


@click.group(cls=LazyGroup, lazy=COMMANDS, invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
@click.pass_context
def plugins(context: click.Context, as_json: bool) -> None:
    """List the installed plugins: name, kind, distribution, version and state.

    XLM_DISABLE_PLUGINS=NAME,NAME disables plugins, by distribution or by name.
    """
    if context.invoked_subcommand:
        return
    found: Plugins = context.obj.plugins
    rows = [row for state in found.states for row in _rows(state, found)]
    rows.sort(key=lambda row: (row.kind == "", row.kind, row.name, row.distribution))
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False))
    else:
        _print(rows, found.faults())
    for name in found.unmatched:
        warn(f"note: {DISABLE_VARIABLE} names {name}, which is not a plugin")
    for distribution in _others_with_a_command_xlm():
        warn(
            f"note: {distribution} installs a command xlm too, and which one a shell finds depends "
            "on what was installed last; this one also answers to xlm-plugins"
        )


def _others_with_a_command_xlm() -> list[str]:
    """Distributions of others that install a command of our name."""
    commands = entry_points(group="console_scripts", name="xlm")
    names = {command.dist.name for command in commands if command.dist}
    return sorted(names - {CORE_DISTRIBUTION})


def _rows(state: PluginState, plugins: Plugins) -> list[Row]:
    origin = (state.distribution, state.version)
    fault = (state.state, state.cause, state.remedy)
    if not state.components:
        hooks = ", ".join(plugins.hooks_of(state))
        return [Row(state.name, "hooks" if hooks else "", *origin, hooks, *fault)]
    rows = []
    for component in state.components:
        conflict = plugins.registry.conflict(component)
        own = ("conflict", conflict.cause, conflict.remedy) if conflict else fault
        rows.append(Row(component.name, component.kind, *origin, component.summary, *own))
    return rows


def _print(rows: list[Row], faults: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("name", "kind", "distribution", "version", "state", "summary", box=None)
    styles = {"ok": "green", "broken": "bold red", "conflict": "bold yellow", "disabled": "dim"}
    for row in rows:
        cells = map(Text, (row.name, row.kind, row.distribution, row.version))
        table.add_row(*cells, Text(row.state, styles[row.state]), Text(row.summary))
    is_bounded = sys.stdout.isatty() or "COLUMNS" in os.environ
    console = Console(width=None if is_bounded else UNBOUNDED)
    console.print(table)
    for text in faults:
        console.print(Text(f"\n{text}"), soft_wrap=True)
