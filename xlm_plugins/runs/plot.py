"""Curves of one or several runs, as an image."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xlm_plugins.core.errors import BundleError, OptionError
from xlm_plugins.core.files import whole_file
from xlm_plugins.runs.layout import METRICS_NAME
from xlm_plugins.runs.metrics_file import read_metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".pdf", ".svg")
COLUMNS = 2

Curves = dict[str, list[tuple[int, float]]]
Panels = dict[str, Curves]

_LOSS = "training loss"
_OF_TEXT = "validation"
_NAMES = {"ppl": "perplexity", "bleu": "BLEU", "acc": "accuracy", "f1": "F1", "mcc": "MCC"}
_OF_LAYER = re.compile(r"valid_((?:enc|dec)\.\d+\+?)_(.+)")


def plot_runs(runs: Sequence[Path], out: Path) -> None:
    """Draw training loss, validation metrics and the layers' metrics over steps.

    :param out: a file name that ends in .png, .pdf or .svg.
    :raises BundleError: a run has no metrics yet.
    :raises OptionError: the file name has another ending.
    """
    if out.suffix not in FORMATS:
        raise OptionError(
            f"{out} does not name an image format",
            expected=f"a name that ends in {', '.join(FORMATS)}",
        )
    panels: Panels = {_LOSS: {}}
    for run in runs:
        prefix = f"{run.name}: " if len(runs) > 1 else ""
        for title, curves in _panels(run).items():
            drawn = panels.setdefault(title, {})
            drawn.update((prefix + name, points) for name, points in sorted(curves.items()))
    _draw(dict(sorted(panels.items(), key=lambda panel: _order(panel[0]))), out)


def _draw(panels: Panels, out: Path) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    n_rows = -(-len(panels) // COLUMNS)
    size = (13, 5 * n_rows)
    figure, grid = plt.subplots(n_rows, COLUMNS, figsize=size, layout="constrained", squeeze=False)
    for axes, (title, curves) in zip(grid.flat, panels.items(), strict=False):
        for name, points in curves.items():
            steps, values = zip(*points, strict=True)
            marker = "" if title == _LOSS else "o"
            axes.plot(steps, values, label=name, marker=marker, markersize=3, linewidth=1.3)
        axes.set(title=title, xlabel="step", yscale=_scale(title))
        axes.grid(alpha=0.3)
        if curves:
            axes.legend(fontsize=8, frameon=False)
    grid[0, 0].set_ylabel("nats per prediction")
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    try:
        _save(figure, out)
    finally:
        plt.close(figure)


def _order(title: str) -> int:
    """The loss first, then validation metrics, then the layers' metrics."""
    return 0 if title == _LOSS else 2 - title.startswith(_OF_TEXT)


def _scale(title: str) -> str:
    return "log" if title.endswith(_NAMES["ppl"]) else "linear"


def _save(figure: Figure, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as partial:
        figure.savefig(partial, dpi=120, format=out.suffix[1:])


def _panels(run: Path) -> Panels:
    """Training loss by objective, smoothed over lines; validation and layer metrics by kind."""
    if not (run / METRICS_NAME).is_file():
        raise BundleError(f"{run} has no {METRICS_NAME}", expected="a folder that xlm train wrote")
    panels: dict[str, dict[str, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    for line in read_metrics(run / METRICS_NAME):
        if line["kind"] == "train":
            points = panels[_LOSS][line["objective"]]
            loss = float(line["loss"])
            before = points[-1][1] if points else loss
            points.append((line["step"], 0.8 * before + 0.2 * loss))
        elif line["kind"] == "evaluation":
            # Metrics without a perplexity are those of a task, which is what was trained so far.
            task = "" if any(name.endswith("_ppl") for name in line) else "".join(panels[_LOSS])
            for name, value in line.items():
                if place := _place(name, task):
                    title, label = place
                    panels[title][label].append((line["step"], float(value)))
    return {title: dict(curves) for title, curves in panels.items()}


def _place(name: str, task: str) -> tuple[str, str] | None:
    """The panel and the curve of a metric; None if it is not drawn.

    :param task: the task that the metrics belong to, if any.
    """
    if match := _OF_LAYER.fullmatch(name):
        place, metric = match.groups()
        return metric.replace("_", " "), place
    if not name.startswith("valid_"):
        return None
    if task:
        label, _, measure = name.removeprefix("valid_").partition(f"{task}_")
        return f"{_OF_TEXT} {_NAMES.get(measure, measure.replace('_', ' '))}", f"{label}{task}"
    label, _, measure = name.removeprefix("valid_").rpartition("_")
    is_drawn = measure in ("ppl", "bleu") and not label.endswith("_alone")
    return (f"{_OF_TEXT} {_NAMES[measure]}", label) if is_drawn else None
