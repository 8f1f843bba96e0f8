"""``xlm completion``: the script with which a shell completes commands, options and values."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

SHELLS = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}
_VARIABLE = "_XLM_COMPLETE"
"""Click completes a line, and runs nothing, where it is set."""


@click.command()
@click.argument("shell", type=click.Choice(list(SHELLS)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes commands, options and their values in SHELL.

    For bash, add to ~/.bashrc: eval "$(xlm completion bash)"
    """
    program = SHELLS[shell](context.find_root().command, {}, "xlm", _VARIABLE)
    # Not `source`, which also runs bash to look at its version.
    click.echo(program.source_template % program.source_vars())
