"""Curves of one or several runs, as a picture.

Runs are told apart by the style of their lines, languages by colour; means are black and thick.
Panels that would hold more than `MOST_TOGETHER` curves become small multiples, one per language.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xlm_plugins.core.errors import OptionError
from xlm_plugins.core.files import whole_file
from xlm_plugins.runs.curves import LOSS, MEAN, Curve, Panel, read_curves
from xlm_plugins.runs.evaluation_table import BEST

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

FORMATS = (".png", ".pdf", ".svg")
COLUMNS = 2
MOST_TOGETHER = 8
"""Curves in one panel, means not counted."""

COLOURS = (
    "#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#9467bd", "#17becf",
    "#e377c2", "#8c564b", "#bcbd22", "#000080", "#e6ab02", "#7f7f7f",
)  # fmt: skip
STYLES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)), (0, (9, 2)))
_WIDTH = 13.0
_NAMES_HEIGHT = 0.4
_HEIGHT = 3.8
_SMALL_HEIGHT = 1.75
_MEAN_COLOUR = "black"

Runs = Mapping[str, Mapping[str, Panel]]
"""The panels of each run, by the run's name, then by title."""


def plot_runs(runs: Sequence[Path], out: Path) -> None:
    """Draw training loss, validation metrics and the layers' metrics over steps.

    :param out: a file name that ends in .png, .pdf or .svg.
    :raises BundleError: a run has no metrics yet.
    :raises OptionError: the file name ends otherwise.
    """
    if out.suffix not in FORMATS:
        raise OptionError(
            f"{out} names no kind of picture", expected=f"a name that ends in {', '.join(FORMATS)}"
        )
    is_named_alike = len({run.name for run in runs}) < len(set(runs))
    found = {str(run) if is_named_alike else run.name: read_curves(run) for run in runs}
    panels = {title: panel for of_run in found.values() for title, panel in of_run.items()}
    figure = _draw(found, sorted(panels.values(), key=lambda panel: (panel.rank, panel.title)))
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as partial:
        figure.savefig(partial, dpi=120, format=out.suffix[1:])


def _draw(runs: Runs, panels: Sequence[Panel]) -> Figure:
    """Panels beside each other, then small multiples over the whole width."""
    from matplotlib.figure import Figure

    large = [panel for panel in panels if _is_large(panel, runs)]
    small = [panel for panel in panels if panel not in large]
    heights = [_NAMES_HEIGHT] * (len(runs) > 1) + [_HEIGHT * -(-len(small) // COLUMNS)]
    heights += [0.5 + _SMALL_HEIGHT * _grid(len(_labels(panel, runs)))[0] for panel in large]
    figure = Figure(figsize=(_WIDTH, sum(heights)), layout="constrained")
    parts = list(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).flat)
    if len(runs) > 1:
        _name_runs(parts.pop(0), list(runs))
    grid = parts.pop(0).subplots(-(-len(small) // COLUMNS), COLUMNS, squeeze=False)
    for axes, panel in zip(grid.flat, small, strict=False):
        _draw_panel(axes, panel, runs)
    for axes in grid.flat[len(small) :]:
        axes.set_visible(False)
    for part, panel in zip(parts, large, strict=True):
        _draw_multiples(part, panel, runs)
    return figure


def _grid(n: int) -> tuple[int, int]:
    """Rows and columns of small multiples."""
    n_columns = min(max(4, math.ceil(math.sqrt(n))), 6)
    return -(-n // n_columns), n_columns


def _labels(panel: Panel, runs: Runs) -> list[str]:
    """What the curves of a panel are of, the mean first if there are several others."""
    labels = {
        label for of_run in runs.values() if panel.title in of_run
        for label in of_run[panel.title].curves
    }  # fmt: skip
    others = sorted(labels - {MEAN})
    return ([MEAN] if MEAN in labels and len(others) != 1 else []) + others


def _is_large(panel: Panel, runs: Runs) -> bool:
    labels = [label for label in _labels(panel, runs) if label != MEAN]
    n_curves = sum(bool(curve) for label in labels for curve in _curves(label, panel, runs))
    return n_curves > MOST_TOGETHER and panel.title != LOSS


def _curves(label: str, panel: Panel, runs: Runs) -> list[Curve]:
    """The curve of each run, empty where a run has none."""
    return [
        of_run[panel.title].curves.get(label, []) if panel.title in of_run else []
        for of_run in runs.values()
    ]


def _name_runs(part: SubFigure, names: Sequence[str]) -> None:
    """The legend of line styles, above all panels."""
    from matplotlib.lines import Line2D

    lines = [
        Line2D([], [], color="dimgrey", linewidth=2, linestyle=STYLES[index % len(STYLES)])
        for index in range(len(names))
    ]
    part.legend(lines, names, loc="center", ncols=min(len(names), 5), frameon=False, handlelength=5)


def _draw_panel(axes: Axes, panel: Panel, runs: Runs) -> None:
    """All curves in one, with a legend beside it that has their last values."""
    labels = _labels(panel, runs)
    colours = _colours(labels)
    for label in labels:
        for index, curve in enumerate(_curves(label, panel, runs)):
            _draw_curve(axes, curve, colours[label], index, marked=panel.title != LOSS)
    _dress(axes, panel, runs)
    axes.set_title(panel.title, fontsize=10, loc="left")
    axes.set_xlabel("step", fontsize=8)
    if panel.title == LOSS:
        axes.set_ylabel("nats per prediction", fontsize=8)
    if labels:
        _add_legend(axes, panel, runs, colours)


def _add_legend(axes: Axes, panel: Panel, runs: Runs, colours: Mapping[str, str]) -> None:
    from matplotlib.lines import Line2D

    texts = [f"{label}  {_last_values(label, panel, runs)}" for label in colours]
    lines = [
        Line2D([], [], color=colour, linewidth=3 if label == MEAN else 1.8)
        for label, colour in colours.items()
    ]
    axes.legend(
        lines, texts, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False,
        handlelength=1.5, title=_legend_title(panel, runs), title_fontsize=8, alignment="left",
    )  # fmt: skip


def _legend_title(panel: Panel, runs: Runs) -> str:
    if len(runs) == 1:
        return "last value"
    return "last values" + f" ({BEST} best)" * (panel.lower_is_better is not None)


def _last_values(label: str, panel: Panel, runs: Runs) -> str:
    """The last value of each run; with several runs the best is marked, if one is."""
    values = [curve[-1][1] if curve else math.nan for curve in _curves(label, panel, runs)]
    texts = ["-" if math.isnan(value) else _number(value) for value in values]
    compared = [value for value in values if not math.isnan(value)]
    if len(compared) > 1 and panel.lower_is_better is not None:
        best = min(compared) if panel.lower_is_better else max(compared)
        texts = [
            text + BEST * (value == best and min(compared) < max(compared))
            for text, value in zip(texts, values, strict=True)
        ]
    return " | ".join(texts)


def _draw_multiples(part: SubFigure, panel: Panel, runs: Runs) -> None:
    """One small panel per curve, on the same scale; the mean is in each, in grey."""
    labels = _labels(panel, runs)
    colours = _colours(labels)
    n_rows, n_columns = _grid(len(labels))
    grid = part.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
    part.suptitle(panel.title, fontsize=10, x=0.01, ha="left")
    for axes, label in zip(grid.flat, labels, strict=False):
        if label != MEAN and MEAN in labels:
            for index, curve in enumerate(_curves(MEAN, panel, runs)):
                _draw_curve(axes, curve, "silver", index, marked=False)
        for index, curve in enumerate(_curves(label, panel, runs)):
            _draw_curve(axes, curve, colours[label], index, marked=False)
        weight = "bold" if label == MEAN else "normal"
        axes.set_title(
            f"{label}  {_last_values(label, panel, runs)}", fontsize=8, loc="left", weight=weight
        )
    for axes in grid.flat:
        _dress(axes, panel, runs)  # when all curves are there, for they share a scale
    for axes in grid.flat[len(labels) :]:
        axes.set_visible(False)


def _colours(labels: Sequence[str]) -> dict[str, str]:
    others = [label for label in labels if label != MEAN]
    of_others = {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(others)}
    return {label: of_others.get(label, _MEAN_COLOUR) for label in labels}


def _draw_curve(axes: Axes, curve: Curve, colour: str, run: int, *, marked: bool) -> None:
    finite = [(step, value) for step, value in curve if math.isfinite(value)]
    if not finite:
        return
    steps, values = zip(*finite, strict=True)
    is_mean = colour == _MEAN_COLOUR
    axes.plot(
        steps, values, color=colour, linestyle=STYLES[run % len(STYLES)],
        linewidth=2.6 if is_mean else 1.4, zorder=3 if is_mean else 2,
        marker="o" if marked and len(finite) <= 30 else "", markersize=3,
    )  # fmt: skip


def _dress(axes: Axes, panel: Panel, runs: Runs) -> None:
    """Scale, ticks and grid: plain numbers, also where the scale is logarithmic."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    # A tick may have more digits than a value that is read off: 7.375 is not 7.38.
    plain = FuncFormatter(lambda v, _: f"{v:,.0f}" if abs(v) >= 1000 else f"{v:.6g}")
    if panel.log:
        axes.set_yscale("log")
        if (limits := _limits(panel, runs)) is not None:
            axes.set_ylim(*limits)
        low, high = axes.get_ylim()
        subs = (1.0, 2.0, 5.0) if high / low > 8 else tuple(range(1, 10))
        axes.yaxis.set_major_locator(LogLocator(subs=subs))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(plain)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _limits(panel: Panel, runs: Runs) -> tuple[float, float] | None:
    """What a scale shows of perplexities: that of the untrained model leaves through the top, for
    otherwise all that training does would be a line at the bottom."""
    curves = [
        curve for of_run in runs.values() if panel.title in of_run
        for curve in of_run[panel.title].curves.values()
    ]  # fmt: skip
    values = [v for curve in curves for step, v in curve if step > 0 and 0 < v < math.inf]
    if not values or any(len(curve) < 5 for curve in curves):
        return None
    return min(values) / 1.15, max(values) * 1.3


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
