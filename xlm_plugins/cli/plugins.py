"""``xlm plugins``: what is installed, and what is broken and why."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass

import click

from xlm_plugins.core.plugins import PluginState

UNBOUNDED = 1000
"""Columns where standard output is no terminal: a pipe's reader wants whole lines."""


@dataclass(frozen=True)
class Row:
    """One component, or one plugin that brought none."""

    name: str
    kind: str
    distribution: str
    version: str
    state: str
    summary: str
    cause: str


@click.command()
@click.option("--json", "as_json", is_flag=True, help="A JSON list instead of a table.")
@click.pass_context
def plugins(context: click.Context, as_json: bool) -> None:
    """List the installed plugins: name, kind, distribution, version and state."""
    rows = [row for state in context.obj.plugins.states for row in _rows(state)]
    rows.sort(key=lambda row: (row.kind == "", row.kind, row.name, row.distribution))
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False))
    else:
        _print_table(rows)


def _rows(state: PluginState) -> list[Row]:
    origin = (state.distribution, state.version, state.state)
    if not state.components:
        return [Row(state.name, "", *origin, "", state.cause)]
    return [Row(c.name, c.kind, *origin, c.summary, state.cause) for c in state.components]


def _print_table(rows: list[Row]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("name", "kind", "distribution", "version", "state", "summary", box=None)
    styles = {"ok": "green", "broken": "bold red", "disabled": "dim"}
    for row in rows:
        state = Text(row.state, styles[row.state])
        table.add_row(
            *map(Text, (row.name, row.kind, row.distribution, row.version)),
            state,
            Text(row.summary),
        )
    console = Console(width=None if sys.stdout.isatty() else UNBOUNDED)
    console.print(table)
    causes = {
        f"{row.distribution} {row.version} ({row.name})": row.cause for row in rows if row.cause
    }
    for plugin, cause in causes.items():
        console.print(Text(f"\n{plugin} is broken\n  {cause}"), soft_wrap=True)
