"""Groups of commands that are imported only when they are used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import click

from xlm_plugins.cli import messages
from xlm_plugins.cli.variables import (
    name_variables,
    note_unknown_variables,
    variable_of,
    variable_of_option,
)
from xlm_plugins.core.errors import PluginError
from xlm_plugins.core.plugin_faults import nearest


class LazyGroup(click.Group):
    """A group that knows the names and short help of its commands, and imports one on use.

    Commands that are added to it as usual stand after these.

    :param lazy: command name -> (module in `xlm_plugins.cli` : attribute, short help).
    """

    def __init__(
        self, *args: Any, lazy: Mapping[str, tuple[str, str]] = MappingProxyType({}), **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The core's commands in reading order, then those of plugins."""
        return [*self._lazy, *sorted(self.commands)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command of the core, or return one that a plugin added."""
        if cmd_name in self._lazy:
            module, _, attribute = self._lazy[cmd_name][0].partition(":")
            found = getattr(importlib.import_module(f"xlm_plugins.cli.{module}"), attribute)
        else:
            found = super().get_command(ctx, cmd_name)
        if isinstance(found, click.Command):
            messages.add_to(found)
            name_variables(found, variable_of(str(ctx.auto_envvar_prefix), cmd_name))
            return found
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; the error for an unknown one suggests similar names."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            known = self.list_commands(ctx)
            error = PluginError(
                f"there is no command {name!r}",
                expected=f"one of {', '.join(known)}",
                remedy=nearest(name, known),
            )
            # Plugins add commands only at the top level.
            raise error if ctx.parent else ctx.obj.plugins.explain_unknown(name, error)
        found = super().resolve_command(ctx, args)
        # Other kinds of commands know all of their options only when they have read the arguments.
        if type(found[1]) is click.Command and not ctx.resilient_parsing:
            prefix = variable_of(str(ctx.auto_envvar_prefix), name)
            options = [p for p in found[1].params if isinstance(p, click.Option)]
            note_unknown_variables(prefix, [variable_of_option(prefix, o) for o in options])
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        own = [(name, text) for name, (_, text) in self._lazy.items()]
        added = [
            (name, self.commands[name].get_short_help_str(80)) for name in sorted(self.commands)
        ]
        # Plugins add commands only at the top level.
        others = "Commands" if ctx.parent else "Commands of plugins"
        for title, rows in (("Commands", own), (others, added)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
