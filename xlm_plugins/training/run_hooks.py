"""The run hooks of plugins, called so that no plugin can end a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xlm_plugins.core.plugins import Plugins
from xlm_plugins.runs.folder import RunFolder
from xlm_plugins.training.progress import Report


class RunHooks:
    """Gathers what was measured, and tells plugins at the end of each update; rank 0 alone does.

    A plugin that fails is told of and called no more.
    """

    def __init__(self, plugins: Plugins, folder: RunFolder, report: Report) -> None:
        self._plugins = plugins
        self._folder = folder
        self._report = report
        self._measured: dict[str, float] = {}

    def logged(self, records: Sequence[Mapping[str, Any]], **others: float) -> None:
        """Take in a log line: loss and accuracy by objective and languages, and the rest."""
        for record in records:
            label = f"train_{record['languages']}_{record['objective']}"
            self._measured[f"{label}_loss"] = record["loss"]
            self._measured[f"{label}_acc"] = record["accuracy"]
        self._measured |= others

    def evaluated(self, metrics: Mapping[str, float]) -> None:
        """Take in an evaluation."""
        self._measured |= metrics

    def step_end(self, step: int) -> None:
        """Tell of an update, and of what was measured since the last one was told of."""
        measured, self._measured = self._measured, {}
        self._call("xlm_step_end", step=step, metrics=measured)

    def checkpoint_saved(self, path: Path) -> None:
        """Tell of a checkpoint or a best model that is on disk."""
        self._call("xlm_checkpoint_saved", path=path)

    def _call(self, hook: str, **arguments: Any) -> None:
        if self._folder.writing:
            for line in self._plugins.call(hook, run=self._folder.path, **arguments):
                self._report.note(f"a plugin failed and is left out from here on: {line}")
