"""Translation retrieval by nearest neighbour as a plugin: its hook, without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xlm_plugins import hookimpl

if TYPE_CHECKING:
    import click


@hookimpl
def xlm_commands(cli: click.Group) -> None:
    from xlm_retrieval.command import retrieval

    cli.add_command(retrieval)
