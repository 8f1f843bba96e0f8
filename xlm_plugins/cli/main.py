"""``xlm``: the group of commands.  A command's module is imported when the command is used."""

from __future__ import annotations

import difflib
import importlib
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from xlm_plugins import __version__
from xlm_plugins.core.errors import PluginError, XLMError
from xlm_plugins.core.plugins import Plugins

INTERRUPTED = 130
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

COMMANDS = {
    "train": ("train:train", "Train a model with the objectives and layers that you select."),
    "evaluate": ("evaluate:evaluate", "Measure a model on a data set."),
    "fill-mask": ("fill_mask:fill_mask", "Fill the masks in sentences, in any language."),
    "prepare": ("prepare:prepare", "Turn text into a data set: tokenizer, shards, manifest."),
    "data": ("data:data", "Show what is inside a data set."),
    "tokenizer": ("tokenizer:tokenizer", "Train a tokenizer; encode and decode text."),
    "plot": ("plot:plot", "Draw the curves of runs."),
    "plugins": ("plugins:plugins", "List the installed plugins, the broken ones too."),
    "demo": ("demo:demo", "See the whole thing work, in a few minutes."),
}
"""Command name -> (module in `xlm_plugins.cli` : attribute, short help)."""


@dataclass
class Session:
    """What every command finds in ``context.obj``."""

    plugins: Plugins
    debug: bool = False


class LazyGroup(click.Group):
    """A group that knows its commands' names and short help, and imports one when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The core's commands in reading order, then those of plugins."""
        return [*COMMANDS, *sorted(self.commands)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command of the core, or take one that a plugin added."""
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(f"xlm_plugins.cli.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Take in a plugin's command; nothing is ever replaced.

        :raises PluginError: the name is taken.
        """
        name = name or cmd.name or ""
        if name in COMMANDS or name in self.commands:
            raise PluginError(f"the command {name!r} exists already")
        super().add_command(cmd, name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown one is answered with the nearest names."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            raise _unknown_command(name, self.list_commands(ctx), ctx.obj.plugins)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        own = [(name, text) for name, (_, text) in COMMANDS.items()]
        added = [(name, self.commands[name].get_short_help_str()) for name in sorted(self.commands)]
        for title, rows in (("Commands", own), ("Commands of plugins", added)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def build_group(plugins: Plugins) -> LazyGroup:
    """The command line, plugins' commands included; made anew for each call of `main`."""

    @click.group(cls=LazyGroup, context_settings=_CONTEXT)
    @click.option("--debug", is_flag=True, help="Show tracebacks, and plugins that are broken.")
    # A launcher of many processes puts --local_rank before the command; LOCAL_RANK says it too.
    @click.option("--local_rank", "--local-rank", hidden=True, expose_value=False)
    @click.version_option(__version__, prog_name="xlm")
    @click.pass_context
    def xlm(context: click.Context, debug: bool) -> None:
        """Cross-lingual language models from plugins.

        Start with `xlm demo`, or with `xlm train --objective tlm --layer pkm`.
        """
        context.obj.debug = debug
        if debug:
            for state in plugins.broken():
                click.echo(f"note: plugin {state.distribution} is broken: {state.cause}", err=True)

    assert isinstance(xlm, LazyGroup)
    plugins.add_commands(xlm)
    return xlm


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    :param arguments: the command line without the program's name; ``sys.argv`` if None.
    :returns: the exit status: 2 for what the user can mend, 130 when interrupted.
    """
    session = Session(Plugins.discover())
    try:
        group = build_group(session.plugins)
        result: Any = group.main(
            None if arguments is None else list(arguments),
            prog_name="xlm",
            standalone_mode=False,
            obj=session,
        )
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:  # `xlm data DIR | head`: the reader has enough
        sys.stdout = None  # else Python would write what is left at its end, and complain
        return INTERRUPTED
    except (XLMError, OSError) as error:
        if session.debug:
            traceback.print_exc()
        click.echo(f"error: {_indented(error)}", err=True)
        return getattr(error, "exit_status", XLMError.exit_status)
    return result if type(result) is int else 0


def _indented(error: Exception) -> str:
    return str(error).rstrip().replace("\n", "\n  ")


def _unknown_command(name: str, known: list[str], plugins: Plugins) -> XLMError:
    close = difflib.get_close_matches(name, known, n=3)
    remedy = f"did you mean {' or '.join(close)}?" if close else ""
    if plugins.broken():
        remedy = f"{remedy}\n{plugins.broken_note()}".strip()
    return PluginError(
        f"there is no command {name!r}", expected=f"one of {', '.join(known)}", remedy=remedy
    )
