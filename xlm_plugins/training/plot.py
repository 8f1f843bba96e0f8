"""Curves of one or several runs, as a picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xlm_plugins.core.errors import BundleError, OptionError
from xlm_plugins.training.metrics import read_metrics
from xlm_plugins.training.run import METRICS_NAME

FORMATS = (".png", ".pdf", ".svg")

Curve = dict[str, list[tuple[int, float]]]


def plot_runs(runs: Sequence[Path], out: Path) -> None:
    """Draw training loss, validation perplexity and learning rate over steps.

    :param out: a file name that ends in .png, .pdf or .svg.
    :raises BundleError: a run has no metrics yet.
    :raises OptionError: the file name ends otherwise.
    """
    if out.suffix not in FORMATS:
        raise OptionError(
            f"{out} names no kind of picture", expected=f"a name that ends in {', '.join(FORMATS)}"
        )
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, (losses, perplexities) = plt.subplots(1, 2, figsize=(13, 5), layout="constrained")
    for run in runs:
        prefix = f"{run.name}: " if len(runs) > 1 else ""
        train, evaluation = _curves(run)
        _draw(losses, train, prefix, marker="")
        _draw(perplexities, evaluation, prefix, marker="o")
    losses.set(title="training loss", xlabel="step", ylabel="nats per predicted token")
    perplexities.set(title="validation perplexity", xlabel="step", ylabel="perplexity")
    perplexities.set_yscale("log")
    for axes in (losses, perplexities):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=8, frameon=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120)
    plt.close(figure)


def _draw(axes: Any, curves: Curve, prefix: str, marker: str) -> None:
    for name, points in sorted(curves.items()):
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, label=prefix + name, marker=marker, markersize=3, linewidth=1.3)


def _curves(run: Path) -> tuple[Curve, Curve]:
    """Training loss by objective, smoothed over lines, and perplexities by name."""
    if not (run / METRICS_NAME).is_file():
        raise BundleError(f"{run} has no {METRICS_NAME}", expected="a folder that xlm train wrote")
    train: Curve = defaultdict(list)
    evaluation: Curve = defaultdict(list)
    for line in read_metrics(run / METRICS_NAME):
        if line["kind"] == "train":
            points = train[line["objective"]]
            loss = float(line["loss"])
            before = points[-1][1] if points else loss
            points.append((line["step"], 0.8 * before + 0.2 * loss))
        elif line["kind"] == "evaluation":
            for name, value in line.items():
                if name.endswith("_ppl") and "_alone_" not in name:
                    label = name.removesuffix("_ppl").removeprefix("valid_")
                    evaluation[label].append((line["step"], float(value)))
    return train, evaluation
