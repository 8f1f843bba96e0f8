"""Progress of a run on the terminal: a live table, or plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

PLAIN_SECONDS = 10.0
"""Least time between two plain lines."""

Record = Mapping[str, Any]


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

    @contextmanager
    def shown(self) -> Iterator[None]:
        """While entered, a terminal shows the live table, which remains at the end."""
        if not self.console.is_terminal:
            yield
            return
        percentage = TextColumn("{task.percentage:.0f}%")
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), percentage, console=self.console
        )
        self._bar.add_task("", total=1.0)
        with Live(console=self.console, refresh_per_second=4) as self._live:
            yield

    def note(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

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
        if self._live is not None and self._bar is not None:
            self._bar.update(self._bar.task_ids[0], description=head, completed=share)
            self._live.update(Group(self._table(), self._bar))
        elif time.monotonic() - self._last_plain >= PLAIN_SECONDS or share >= 1:
            self._last_plain = time.monotonic()
            losses = "  ".join(
                f"{objective}:{step} {record['loss']:.3f}"
                for (objective, step), record in sorted(self._latest.items())
            )
            self.note(f"{head}  loss {losses}")

    def evaluation(self, update: int, metrics: Mapping[str, float]) -> None:
        """Show an evaluation in one line: perplexities and BLEU, or all metrics of a task."""
        parts = []
        for title, suffix in (("perplexity", "_ppl"), ("BLEU", "_bleu")):
            shown = [
                f"{name.removesuffix(suffix)} {value:,.1f}"
                for name, value in metrics.items()
                if name.endswith(suffix) and "_alone_" not in name
            ]
            parts += [f"{title} {'  '.join(shown)}"] if shown else []
        parts = parts or ["  ".join(f"{name} {value:.1f}" for name, value in metrics.items())]
        self.note(f"evaluation at step {update:,}: {'; '.join(parts)}")

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
