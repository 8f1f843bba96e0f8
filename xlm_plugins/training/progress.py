"""Progress of a run on the terminal: a live table, or plain lines where there is no terminal."""

from __future__ import annotations

import logging
import textwrap
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from xlm_plugins.core.messages import is_quiet, note_on
from xlm_plugins.runs.evaluation_table import BEST, evaluation_tables

PLAIN_SECONDS = 10.0
"""Least time between two plain lines."""

_UNBROKEN = "\N{NO-BREAK SPACE}"

Record = Mapping[str, Any]
OnProgress = Callable[[str, float], object]
"""Called with the current activity and the share that is done, from 0 to 1."""


def no_progress(activity: str, share: float) -> None:
    """Report nothing."""


def parts_of(on_progress: OnProgress, n_parts: int) -> Iterator[OnProgress]:
    """Split a callback: one for each part of the work, whose share goes from 0 to 1."""
    for part in range(n_parts):

        def report(activity: str, share: float, done: int = part) -> None:
            on_progress(activity, (done + share) / n_parts)

        yield report


@dataclass
class Report:
    """Shows the progress of a run on standard error; silent on every rank but the first.

    :param console: where to write.
    """

    console: Console
    _latest: dict[tuple[str, str], Record] = field(default_factory=dict)
    _live: Live | None = None
    _bar: Progress | None = None
    _last_plain: float = 0.0
    _trained: tuple[str, float] = ("", 0.0)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """While entered, a terminal shows the live table, which remains at the end."""
        if not self.console.is_terminal or is_quiet():
            yield
            return
        percentage = TextColumn("{task.percentage:.0f}%")
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), percentage, console=self.console
        )
        self._bar.add_task("", total=1.0)
        with Live(console=self.console, refresh_per_second=4) as self._live:
            yield

    def note(self, text: str, level: int = logging.INFO) -> None:
        """Print a line; the log file has those of every rank."""
        note_on(self.console, text, level)

    def warn(self, text: str) -> None:
        """Print a line that the user should look at, even with ``--quiet``."""
        self.note(text, logging.WARNING)

    def training(
        self,
        records: Sequence[Record],
        common: Mapping[str, float],
        place: str,
        share: float,
        seconds_left: float,
    ) -> None:
        """Show the progress of training.

        :param records: loss and accuracy per objective and languages.
        :param common: ``learning_rate`` and ``tokens_per_second``.
        :param place: where the run is, in words: ``step 50/100``.
        :param share: of the run that is done, from 0 to 1.
        """
        for record in records:
            self._latest[record["objective"], record["languages"]] = record
        head = (
            f"{place}  {common['tokens_per_second']:,.0f} tokens/s  "
            f"lr {common['learning_rate']:.2e}  {_duration(seconds_left)} left"
        )
        if self._live is not None:
            self._trained = head, share
            self._show_bar(*self._trained)
        if time.monotonic() - self._last_plain >= PLAIN_SECONDS or share >= 1:
            self._last_plain = time.monotonic()
            for line in self._lines(head):
                note_on(None if self._live else self.console, line)

    def _lines(self, head: str) -> list[str]:
        """What stands for the live table: losses or, if a line cannot hold them, their means."""
        losses: dict[str, list[float]] = {}
        for (objective, _), record in sorted(self._latest.items()):
            losses.setdefault(objective, []).append(record["loss"])
        each = [f"{':'.join(key)} {self._latest[key]['loss']:.3f}" for key in sorted(self._latest)]
        means = [
            f"{name}{_UNBROKEN}{sum(found) / len(found):.3f}" for name, found in losses.items()
        ]
        line = f"{head}  loss {'  '.join(each)}"
        if len(line) <= self.console.width:
            return [line]
        # No line ends between a name and its number.
        whole = f"{head}  {_UNBROKEN.join(['mean', 'loss', ''])}{'  '.join(means)}"
        lines = textwrap.wrap(whole, self.console.width, subsequent_indent="  ")
        return [line.replace(_UNBROKEN, " ") for line in lines]

    def evaluating(self, activity: str, share: float) -> None:
        """Show how far an evaluation is, where there is a live table.

        :param activity: what is measured now: ``mlm:en``.
        :param share: of the evaluation that is done, from 0 to 1.
        """
        self._show_bar(f"evaluating {activity}", share)

    def evaluation(
        self, update: int, metrics: Mapping[str, float], best: Collection[str] = ()
    ) -> None:
        """Show an evaluation as tables.

        :param best: the metrics that are better than ever before in this run.
        """
        legend = f" ({BEST} best so far)" if best else ""
        self.note(f"evaluation at step {update:,}{legend}")
        for line in evaluation_tables(metrics, self.console.width, best):
            note_on(None, line)
            if not is_quiet():
                self.console.print(line, soft_wrap=True)
        self._show_bar(*self._trained)

    def _show_bar(self, description: str, share: float) -> None:
        if self._live is not None and self._bar is not None:
            self._bar.update(self._bar.task_ids[0], description=description, completed=share)
            self._live.update(Group(self._table(), self._bar))

    def _table(self) -> Table:
        table = Table("objective", "languages", "loss", "accuracy", box=None, pad_edge=False)
        for (objective, step), record in sorted(self._latest.items()):
            accuracy = f"{record['accuracy']:.1f} %"
            table.add_row(objective, step, f"{record['loss']:.3f}", accuracy)
        return table


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
