"""What happens in a run, passed on to its folder, the terminal and the hooks of plugins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from xlm_plugins.core.plugins import Plugins
from xlm_plugins.runs.evaluation_table import BestSoFar
from xlm_plugins.runs.folder import RunFolder
from xlm_plugins.runs.layout import METRICS_NAME
from xlm_plugins.runs.metrics_file import read_metrics
from xlm_plugins.training.progress import Report

Fill = Callable[[Path], None]
"""Writes files into the folder that it is given."""


class RunRecord:
    """Records what a run measures and saves; only rank 0 writes files and calls plugins.

    Plugins get each measurement once, with the next call of `step_end`.  A plugin that fails
    cannot end the run: it is reported, and not called again.

    :param folder: where the run is written.
    :param report: shows progress on the terminal.
    """

    def __init__(self, folder: RunFolder, plugins: Plugins, report: Report) -> None:
        self.folder = folder
        self._plugins = plugins
        self._report = report
        self._measured: dict[str, float] = {}
        path = folder.path / METRICS_NAME
        self._best = BestSoFar(read_metrics(path) if folder.writing and path.is_file() else ())

    def note(self, text: str) -> None:
        """Show a line on the terminal."""
        self._report.note(text)

    def warn(self, text: str) -> None:
        """Show a line that the user should look at."""
        self._report.warn(text)

    def training(
        self,
        update: int,
        records: Sequence[Mapping[str, Any]],
        common: Mapping[str, float],
        place: str,
        share: float,
        seconds_left: float,
    ) -> None:
        """Record the training since the last call.

        :param update: updates made.
        :param records: loss and accuracy per objective and languages.
        :param common: metrics of all of them together, such as the learning rate.
        :param place: where the run is, in words: ``step 50/100``.
        :param share: of the run that is done, from 0 to 1.
        """
        for record in records:
            self.folder.metrics.write("train", update, {**record, **common})
            label = f"train_{record['languages']}_{record['objective']}"
            self._measured[f"{label}_loss"] = record["loss"]
            self._measured[f"{label}_acc"] = record["accuracy"]
        self._measured |= common
        self._report.training(records, common, place, share, seconds_left)

    def evaluating(self, activity: str, share: float) -> None:
        """Show how far an evaluation is, as `Report.evaluating`."""
        self._report.evaluating(activity, share)

    def evaluation(self, update: int, metrics: Mapping[str, float]) -> None:
        """Record an evaluation."""
        self.folder.metrics.write("evaluation", update, metrics)
        self._report.evaluation(update, metrics, self._best.take(metrics))
        self._measured |= metrics

    def best(self, improved: Sequence[str], fill: Fill, metrics: Sequence[str]) -> None:
        """Save the best model so far, as `RunFolder.save_best`."""
        if self.folder.writing:
            for path in self.folder.save_best(improved, fill, metrics):
                self._call("xlm_checkpoint_saved", path=path)

    def checkpoint(self, update: int, fill: Fill, keep: int) -> None:
        """Save a checkpoint, as `RunFolder.save_checkpoint`."""
        if self.folder.writing:
            path = self.folder.save_checkpoint(update, fill, keep)
            self._call("xlm_checkpoint_saved", path=path)

    def step_end(self, step: int) -> None:
        """Tell plugins that an update is done, and what was measured since the last call."""
        measured, self._measured = self._measured, {}
        self._call("xlm_step_end", step=step, metrics=measured)

    def _call(self, hook: str, **arguments: Any) -> None:
        if self.folder.writing:
            for line in self._plugins.call(hook, run=self.folder.path, **arguments):
                self.warn(f"a plugin failed and is not called again: {line}")
