"""An evaluation as tables, for training and for ``xlm evaluate``.

Rows are objectives and languages, columns are measures: with many languages a table goes down.
Columns that do not fit beside each other go into a further table, so that no number is broken.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from xlm_plugins.runs.metric_names import LOWER_IS_BETTER, MetricName, parse_names

if TYPE_CHECKING:
    from rich.text import Text

BEST = "*"
"""Marks what is best so far."""

_GAP = 2
_ROW = ("objective", "languages")
_MEAN = "mean"


class BestSoFar:
    """The best value of each metric over the evaluations of a run.

    :param earlier: the lines of metrics.jsonl before this start of the run.
    """

    def __init__(self, earlier: Iterable[Mapping[str, Any]] = ()) -> None:
        self._best: dict[str, float] = {}
        for line in earlier:
            if line["kind"] == "evaluation":
                self.take({k: float(v) for k, v in line.items() if k not in _NO_METRICS})

    def take(self, metrics: Mapping[str, float]) -> set[str]:
        """Take in an evaluation; returns what is better than in all before, if there were any.

        What layers measure is neither good nor bad.
        """
        better = set()
        for name, parsed in parse_names(metrics).items():
            value = metrics[name]
            if parsed.of_layer or math.isnan(value):
                continue
            sign = -1 if parsed.measure in LOWER_IS_BETTER else 1
            if name in self._best and sign * value > sign * self._best[name]:
                better.add(name)
            if name not in self._best or name in better:
                self._best[name] = value
        return better


_NO_METRICS = ("kind", "step", "time")


def evaluation_tables(
    metrics: Mapping[str, float], width: int, best: Collection[str] = ()
) -> list[Text]:
    """The lines of an evaluation's tables.

    :param metrics: by name, of one split.
    :param width: of the terminal, in columns.
    :param best: the metrics to mark.
    """
    names = parse_names(metrics)
    lines: list[Text] = []
    layers = list(dict.fromkeys(name.subject for name in names.values() if name.of_layer))
    for layer in (None, *layers):
        cells = {
            (_row(parsed), parsed.title): (metrics[name], name in best, parsed.measure)
            for name, parsed in names.items()
            if (parsed.subject if parsed.of_layer else None) == layer
        }
        columns = _columns(cells)
        head = _ROW if layer is None else ("layer", "place")
        lines += _tables(cells, columns, head, width, bool(lines))
    return lines


_Cells = Mapping[tuple[tuple[str, str], str], tuple[float, bool, str]]


def _row(parsed: MetricName) -> tuple[str, str]:
    return parsed.label, parsed.where or _MEAN


def _columns(cells: _Cells) -> dict[str, dict[tuple[str, str], str]]:
    """Each measure's numbers as text, by row; all of one measure have as many decimals."""
    columns: dict[str, dict[tuple[str, str], str]] = {}
    for title in dict.fromkeys(title for _, title in cells):
        of_title = {row: cell for (row, other), cell in cells.items() if other == title}
        is_marked = any(marked for _, marked, _ in of_title.values())
        largest = max((v for v, _, _ in of_title.values() if math.isfinite(v)), default=0.0)
        columns[title] = {
            row: _number(value, measure, largest) + (BEST if marked else " " * is_marked)
            for row, (value, marked, measure) in of_title.items()
        }
    return columns


def _number(value: float, measure: str, largest: float) -> str:
    if not math.isfinite(value) or abs(value) >= 1e9:
        return f"{value:.3g}"
    if measure == "ppl":
        return f"{value:,.{2 if largest < 100 else 1 if largest < 10_000 else 0}f}"
    if measure == "acc" or largest >= 1 or largest == 0:
        return f"{value:,.1f}"
    return f"{value:.3f}" if largest >= 0.01 else f"{value:.3g}"


def _tables(
    cells: _Cells,
    columns: Mapping[str, Mapping[tuple[str, str], str]],
    head: tuple[str, str],
    width: int,
    is_second: bool,
) -> list[Text]:
    """As many tables as the width requires, with an empty line before each but the first."""
    from rich.text import Text

    rows = sorted(dict.fromkeys(row for row, _ in cells), key=lambda row: row[1] == _MEAN)
    order = list(dict.fromkeys(row[0] for row in dict.fromkeys(row for row, _ in cells)))
    rows.sort(key=lambda row: order.index(row[0]))
    keys = [max(len(text) for text in column) for column in zip(head, *rows, strict=True)]
    lines: list[Text] = []
    for titles in _fitting(columns, width - sum(keys) - _GAP):
        lines += [Text()] * bool(lines or is_second)
        shown = [row for row in rows if any(row in columns[title] for title in titles)]
        lines.append(Text(_line(head, keys, {t: t for t in titles}, columns), style="bold"))
        lines += [
            Text(_line(row, keys, {t: columns[t].get(row, "") for t in titles}, columns))
            for row in shown
        ]
    return lines


def _fitting(columns: Mapping[str, Mapping[Any, str]], width: int) -> list[list[str]]:
    """The titles of the columns that stand beside each other, table by table."""
    tables: list[list[str]] = []
    left = 0
    for title in columns:
        needed = _GAP + _width(title, columns)
        if not tables or needed > left:
            tables.append([])
            left = width
        tables[-1].append(title)
        left -= needed
    return tables


def _width(title: str, columns: Mapping[str, Mapping[Any, str]]) -> int:
    return max(len(title), *(len(text) for text in columns[title].values()))


def _line(
    row: Sequence[str],
    keys: Sequence[int],
    texts: Mapping[str, str],
    columns: Mapping[str, Mapping[Any, str]],
) -> str:
    parts = [text.ljust(size) for text, size in zip(row, keys, strict=True)]
    parts += [text.rjust(_width(title, columns)) for title, text in texts.items()]
    return (" " * _GAP).join(parts).rstrip()
