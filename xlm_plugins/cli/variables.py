"""Environment variables that look like options: ``XLM_TRAIN_LR``."""

from __future__ import annotations

import os
import re
from collections.abc import Collection

import click

from xlm_plugins.core.messages import warn
from xlm_plugins.core.plugin_faults import nearest


def variable_of(prefix: str, name: str) -> str:
    """The variable of an option or a command, as click spells it."""
    return re.sub(r"\W", "_", f"{prefix}_{name}").upper()


def variable_of_option(prefix: str, option: click.Option) -> str:
    """The variable of an option, spelled like its flag: ``XLM_DATA_JSON`` sets ``--json``."""
    return variable_of(prefix, max(option.opts, key=len).lstrip("-"))


def name_variables(command: click.Command, prefix: str) -> None:
    """Let the options of a command be set by variables that are spelled like their flags.

    :param prefix: ``XLM_DATA``.
    """
    for option in command.params:
        if isinstance(option, click.Option) and option.allow_from_autoenv:
            option.envvar = variable_of_option(prefix, option)


def note_unknown_variables(prefix: str, known: Collection[str]) -> None:
    """Name the variables that look like options of a command, but are none.

    :param prefix: ``XLM_TRAIN``.
    :param known: the variables of its options.
    """
    for name in sorted(os.environ):
        if name.startswith(f"{prefix}_") and name not in known:
            hint = nearest(name, known)
            remark = f"; {hint}" if hint else ", unless what it belongs to is selected"
            warn(f"note: {name} is set, but is no option of this command{remark}")
