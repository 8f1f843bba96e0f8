"""Curves of one or several runs, as a picture."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from xlm_plugins.core.errors import BundleError, OptionError
from xlm_plugins.training.metrics import read_metrics
from xlm_plugins.training.run import METRICS_NAME

FORMATS = (".png", ".pdf", ".svg")
COLUMNS = 2

Curves = dict[str, list[tuple[int, float]]]
Panels = dict[str, Curves]

_LOSS = "training loss"
_PERPLEXITY = "validation perplexity"
_OF_LAYER = re.compile(r"valid_((?:enc|dec)\.\d+\+?)_(.+)")


def plot_runs(runs: Sequence[Path], out: Path) -> None:
    """Draw training loss, validation perplexity and what layers measure of themselves, over steps.

    :param out: a file name that ends in .png, .pdf or .svg.
    :raises BundleError: a run has no metrics yet.
    :raises OptionError: the file name ends otherwise.
    """
    if out.suffix not in FORMATS:
        raise OptionError(
            f"{out} names no kind of picture", expected=f"a name that ends in {', '.join(FORMATS)}"
        )
    panels: Panels = {_LOSS: {}, _PERPLEXITY: {}}
    for run in runs:
        prefix = f"{run.name}: " if len(runs) > 1 else ""
        for title, curves in _panels(run).items():
            drawn = panels.setdefault(title, {})
            drawn.update((prefix + name, points) for name, points in sorted(curves.items()))
    _draw(panels, out)


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
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
        if curves:
            axes.legend(fontsize=8, frameon=False)
    grid[0, 0].set_ylabel("nats per predicted token")
    grid[0, 1].set_yscale("log")
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120)
    plt.close(figure)


def _panels(run: Path) -> Panels:
    """Training loss by objective, smoothed over lines; perplexities; layers' metrics by place."""
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
            for name, value in line.items():
                if match := _OF_LAYER.fullmatch(name):
                    place, metric = match.groups()
                    panels[metric.replace("_", " ")][place].append((line["step"], float(value)))
                elif name.endswith("_ppl") and "_alone_" not in name:
                    label = name.removesuffix("_ppl").removeprefix("valid_")
                    panels[_PERPLEXITY][label].append((line["step"], float(value)))
    return {title: dict(curves) for title, curves in panels.items()}
