"""What differs between the settings of a run's starts, in words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xlm_plugins.config.settings import Values
from xlm_plugins.runs.history import Changes, in_force, read_history
from xlm_plugins.runs.layout import CONFIG_NAME, HISTORY_NAME

_UNNAMED = ("model", "optimizer", "train", "finetune")
"""Sections whose options have flags without the section's name."""


def changes(before: Values, after: Values) -> Changes:
    """The options that differ between two trees of settings."""
    old, new = _flat(before), _flat(after)
    names = sorted(old.keys() | new.keys())
    return {n: (old.get(n), new.get(n)) for n in names if old.get(n) != new.get(n)}


def described(changed: Changes) -> str:
    """Such as ``lr 0.5 (was 0.001), steps 40 (was 20)``."""
    return ", ".join(
        f"{_flag(name)} {shown(after)} (was {shown(before)})"
        for name, (before, after) in changed.items()
    )


def not_repeated(config: Path) -> list[str]:
    """What a repetition of a run does otherwise than the run, as lines for the user.

    :param config: a settings file; only a run's config.toml has something to tell.
    :raises RunError: the history is damaged.
    """
    run = config.parent
    if config.name != CONFIG_NAME or not (run / HISTORY_NAME).is_file():
        return []
    *earlier, last = in_force(read_history(run))
    until = [start.step for start in (*earlier, last)][1:]
    lines = []
    for step, start in zip(until, earlier, strict=True):
        was = changes(start.settings, last.settings)
        values = ", ".join(f"{_flag(name)} {shown(value)}" for name, (value, _) in was.items())
        lines += [f"  until step {step:,}: {values}"] if was else []
    if not lines:
        return []
    return [
        f"{config} has the last settings of its run; not repeated are the earlier ones:",
        *lines,
    ]


def _flat(tree: Values) -> dict[str, Any]:
    return {
        f"{section}.{key}": value
        for section, options in tree.items()
        if isinstance(options, Mapping)
        for key, value in options.items()
    }


def _flag(name: str) -> str:
    section, _, key = name.rpartition(".")
    return key if section in _UNNAMED else name


def shown(value: Any) -> str:
    """The value of an option in words: ``on``, ``none``, ``unset``."""
    if isinstance(value, list):
        return ",".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return "unset" if value is None else str(value)
