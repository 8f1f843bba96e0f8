"""history.jsonl: every start of a run, and the settings that each trained with.

One JSON object a line: ``start`` (new or resumed), ``step`` (updates made before it), ``time``,
``changed`` (option: [before, after]), ``settings`` (all of config.toml) and ``environment``
(what environment.json held).  A run may be resumed at an earlier step than its last start, from an
older checkpoint; what trained after that step is then trained again, and counts no longer.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from xlm_plugins.core.errors import RunError
from xlm_plugins.core.files import write_text
from xlm_plugins.runs.layout import CONFIG_NAME, ENVIRONMENT_NAME, HISTORY_NAME

Tree = Mapping[str, Any]
Changes = Mapping[str, tuple[Any, Any]]
"""Option, such as ``optimizer.lr``, to its values before and after; None: unset."""


@dataclass(frozen=True)
class Start:
    """A line of the history.

    :param start: ``new`` or ``resumed``.
    :param step: updates made before it.
    :param time: UTC, in ISO 8601; empty if it is not known.
    :param changed: what differs from the settings of the steps before.
    :param settings: config.toml, as a tree.
    """

    start: str
    step: int
    time: str
    changed: Mapping[str, Sequence[Any]]
    settings: Tree
    environment: Tree

    @classmethod
    def now(cls, start: str, step: int, changed: Changes, config: str, environment: Tree) -> Start:
        """A start at this moment, with the text of config.toml."""
        time = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(start, step, time, changed, tomllib.loads(config), environment)


def read_history(run: Path) -> list[Start]:
    """All starts of a run, the first one first.

    A run of a version that kept no history has had one start that is known: its config.toml.

    :raises RunError: a line, or that config.toml, is damaged.
    """
    path = run / HISTORY_NAME
    if not path.is_file():
        return [_only_start(run)]
    starts = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            starts.append(Start(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise RunError(
                f"{path}, line {number}: not a start of a run ({error})",
                remedy=f"remove that line; if none is left, remove {path}",
            ) from error
    return starts


def _only_start(run: Path) -> Start:
    config, environment = run / CONFIG_NAME, run / ENVIRONMENT_NAME
    try:
        made_in = json.loads(environment.read_text("utf-8")) if environment.is_file() else {}
        return Start("new", 0, "", {}, tomllib.loads(config.read_text("utf-8")), made_in)
    except ValueError as error:
        raise RunError(f"{run}: {CONFIG_NAME} or {ENVIRONMENT_NAME} is damaged: {error}") from error


def write_history(run: Path, starts: Sequence[Start]) -> None:
    """Write all starts, whole or not at all."""
    write_text(run / HISTORY_NAME, "".join(f"{json.dumps(asdict(s))}\n" for s in starts))


def in_force(starts: Sequence[Start], step: int | None = None) -> list[Start]:
    """The starts whose settings trained the run, in order of their steps.

    :param step: leave out what trains from this step on: a run is resumed there.
    """
    found: list[Start] = []
    for start in starts:
        found = [*(s for s in found if s.step < start.step), start]
    return [s for s in found if step is None or s.step < step]
