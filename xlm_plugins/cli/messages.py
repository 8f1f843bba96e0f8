"""``--verbose``, ``--quiet`` and ``--log-file``, which stand before or after a command's name."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import click

from xlm_plugins.core import messages

_COMPLETING = "_XLM_COMPLETE"


def message_options(*, hidden: bool) -> list[click.Option]:
    """The options, which act as soon as they are read.

    :param hidden: the help does not show them, as in that of each command.
    """
    return [
        click.Option(
            ["-v", "--verbose"],
            is_flag=True,
            callback=_verbose,
            help="Show each phase with its time, the files read, and what is decided.",
            hidden=hidden,
            is_eager=True,
            expose_value=False,
        ),
        click.Option(
            ["-q", "--quiet"],
            is_flag=True,
            callback=_quiet,
            help="Show only results, warnings and errors.",
            hidden=hidden,
            is_eager=True,
            expose_value=False,
        ),
        click.Option(
            ["--log-file"],
            type=click.Path(path_type=Path, dir_okay=False),
            callback=_log_file,
            metavar="FILE",
            help="Append all messages, those of --verbose too, with times; each further rank has "
            "a file of its own, FILE.rank-1.",
            hidden=hidden,
            is_eager=True,
            expose_value=False,
        ),
    ]


# Commands with sections parse twice; messages of the first pass are wanted too.  Calls repeat
# without effect.


def _verbose(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        messages.show(logging.DEBUG)


def _quiet(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        messages.show(logging.WARNING)


def _log_file(context: click.Context, parameter: click.Parameter, value: Path | None) -> None:
    if value is not None and _COMPLETING not in os.environ:
        messages.write_to(value, _rank())


def _rank() -> int:
    """Of this process; the module that knows loads torch, which most commands do without."""
    if not {"RANK", "SLURM_PROCID"} & os.environ.keys():
        return 0
    from xlm_plugins.training.distributed.process_group import World

    return World.from_environment().rank


def add_to(command: click.Command) -> None:
    """Give a command these options, unless it has options of these names already."""
    taken = {flag for parameter in command.params for flag in parameter.opts}
    command.params += [
        option for option in message_options(hidden=True) if not taken & set(option.opts)
    ]
