"""What a run's metrics.jsonl holds, as curves: points of (step, value)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xlm_plugins.core.errors import BundleError
from xlm_plugins.runs.layout import METRICS_NAME
from xlm_plugins.runs.metric_names import LOWER_IS_BETTER, MetricName, parse_names
from xlm_plugins.runs.metrics_file import read_metrics

MEAN = "mean"
"""The curve of the mean over languages."""

LOSS = "training loss"

_SMOOTHING = 0.8
"""Weight of the earlier points in the training loss."""

_DRAWN = ("ppl", "bleu")
"""What is drawn of the measures of text; of tasks and layers everything is."""

Curve = list[tuple[int, float]]


@dataclass
class Panel:
    """Curves that share their axes.

    :param title: ``mlm: validation perplexity``.
    :param curves: by language, pair, objective or place.
    :param log: whether values span magnitudes, as perplexities do.
    :param rank: where it stands among panels: losses first, layers last.
    :param lower_is_better: None where neither is.
    """

    title: str
    rank: int
    log: bool = False
    lower_is_better: bool | None = None
    curves: dict[str, Curve] = field(default_factory=dict)


def read_curves(run: Path) -> dict[str, Panel]:
    """The panels of a run, by title, in order.

    :raises BundleError: it has no metrics yet.
    """
    if not (run / METRICS_NAME).is_file():
        raise BundleError(f"{run} has no {METRICS_NAME}", expected="a folder that xlm train wrote")
    panels = {LOSS: Panel(LOSS, 0, lower_is_better=True)}
    losses: dict[str, dict[int, list[tuple[float, float]]]] = {}
    for line in read_metrics(run / METRICS_NAME):
        if line["kind"] == "train":
            of_step = losses.setdefault(line["objective"], {}).setdefault(line["step"], [])
            of_step.append((float(line["loss"]), float(line.get("updates", 1))))
        elif line["kind"] == "evaluation":
            _add_evaluation(panels, line)
    for objective, by_step in sorted(losses.items()):
        points = [(step, _mean(parts)) for step, parts in by_step.items()]
        panels[LOSS].curves[objective] = _smoothed(points)
    ordered = sorted(panels.values(), key=lambda panel: (panel.rank, panel.title))
    return {panel.title: panel for panel in ordered}


def _add_evaluation(panels: dict[str, Panel], line: Mapping[str, Any]) -> None:
    """Add a point to each curve of what an evaluation measured."""
    names = [name for name in line if name.startswith("valid_")]
    is_task = not any(name.endswith("_ppl") for name in names)
    for name, parsed in parse_names(names).items():
        is_drawn = parsed.measure in _DRAWN and not parsed.variant
        if is_drawn or parsed.of_layer or is_task:
            panel = panels.setdefault(_title(parsed), _panel(parsed))
            panel.curves.setdefault(parsed.where or MEAN, []).append(
                (line["step"], float(line[name]))
            )


def _title(parsed: MetricName) -> str:
    if parsed.of_layer:
        return f"{parsed.subject}: {parsed.title}"
    return f"{parsed.label}: validation {parsed.title}"


def _panel(parsed: MetricName) -> Panel:
    if parsed.of_layer:
        return Panel(_title(parsed), 3)
    return Panel(
        _title(parsed),
        1 if parsed.measure == "ppl" else 2,
        log=parsed.measure == "ppl",
        lower_is_better=parsed.measure in LOWER_IS_BETTER,
    )


def _mean(parts: list[tuple[float, float]]) -> float:
    """The mean over the lines of one step, one for each language, weighted by their updates."""
    total = sum(weight for _, weight in parts) or 1.0
    return sum(value * weight for value, weight in parts) / total


def _smoothed(points: Curve) -> Curve:
    smoothed: Curve = []
    for step, value in points:
        before = smoothed[-1][1] if smoothed else value
        after = _SMOOTHING * before + (1 - _SMOOTHING) * value
        smoothed.append((step, after if math.isfinite(after) else value))
    return smoothed
