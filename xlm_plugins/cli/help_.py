"""``xlm help``: the help of a command, for those who look for it there."""

from __future__ import annotations

import click

from xlm_plugins.cli.values import commands


@click.command("help", context_settings={"ignore_unknown_options": True})
@click.argument("command", nargs=-1, type=click.UNPROCESSED, shell_complete=commands)
@click.pass_context
def help_(context: click.Context, command: tuple[str, ...]) -> None:
    """Show the help of COMMAND: xlm help train, xlm help export hf.

    Options of a plugin are shown with it: xlm help train --objective tlm.
    """
    context.find_root().command.main(
        [*command, "--help"], prog_name="xlm", standalone_mode=False, obj=context.obj
    )
