"""Environment variables that look like options: ``XLM_TRAIN_LR``."""

from __future__ import annotations

import os
import re
from collections.abc import Collection

from xlm_plugins.core.messages import warn
from xlm_plugins.core.plugin_faults import nearest


def variable_of(prefix: str, name: str) -> str:
    """The variable of an option or a command, as click spells it."""
    return re.sub(r"\W", "_", f"{prefix}_{name}").upper()


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
