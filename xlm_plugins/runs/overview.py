"""What a run's folder says at a glance: how far it is, whether it goes on, its best metrics."""

from __future__ import annotations

import fcntl
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlm_plugins.core.errors import RunError, XLMError
from xlm_plugins.core.files import read_json
from xlm_plugins.runs.layout import (
    CHECKPOINTS_NAME,
    CONFIG_NAME,
    LOCK_NAME,
    METRICS_NAME,
    RESULTS_NAME,
    TRAINER_NAME,
)
from xlm_plugins.runs.metrics_file import read_metrics
from xlm_plugins.runs.whole_folders import latest


@dataclass(frozen=True)
class Overview:
    """A run at a glance.

    :param status: ``running``, ``finished``, ``stopped`` (it can be resumed), ``no checkpoint`` or
        ``damaged: WHY``.
    :param step: updates made, as the newest checkpoint has it.
    :param trains: its objectives or its task, and its layers.
    :param best: the best value of each metric that models are kept for.
    :param checkpoint: the newest one.
    :param measured: the steps and metrics of its evaluations, in order.
    :param changed: when it wrote its metrics last, in seconds since 1970.
    """

    path: Path
    status: str
    step: int
    trains: str
    best: Mapping[str, float]
    settings: Mapping[str, Any]
    checkpoint: Path | None
    measured: Sequence[Mapping[str, Any]] = ()
    changed: float | None = None

    @classmethod
    def read(cls, run: Path) -> Overview:
        """Read what a run has written so far; whatever is damaged becomes its status."""
        try:
            return cls._read(run)
        except (XLMError, OSError, ValueError, AttributeError, KeyError, TypeError) as error:
            return cls(run, f"damaged: {type(error).__name__}: {error}", 0, "", {}, {}, None)

    @classmethod
    def _read(cls, run: Path) -> Overview:
        settings = tomllib.loads((run / CONFIG_NAME).read_text("utf-8"))
        checkpoint = latest(run / CHECKPOINTS_NAME)
        state = read_json(checkpoint / TRAINER_NAME) if checkpoint else {}
        validation = state.get("validation", {})
        best = {name.lstrip("_"): value for name, value in validation.get("best", {}).items()}
        if _is_locked(run):
            status = "running"
        elif not state:
            status = "no checkpoint"
        else:
            status = "finished" if _is_finished(run, settings, state) else "stopped"
        step = state.get("update", 0)
        path = run / METRICS_NAME
        changed = path.stat().st_mtime if path.is_file() else None
        return cls(
            run, status, step, _trains(settings), best, settings, checkpoint,
            _evaluations(path), changed,
        )  # fmt: skip

    def step_of(self, metric: str) -> int | None:
        """The step at which a metric was best; None if metrics.jsonl does not say."""
        steps = (line["step"] for line in self.measured if line.get(metric) == self.best[metric])
        return next(steps, None)

    @property
    def most_steps(self) -> int | None:
        """The steps that it was to make; None if time or epochs end it."""
        return _run_options(self.settings).get("steps") or None


def _evaluations(path: Path) -> list[dict[str, Any]]:
    """The evaluations in a metrics file; none if it is damaged, which `xlm plot` tells."""
    try:
        return [line for line in read_metrics(path) if line["kind"] == "evaluation"]
    except (RunError, OSError):
        return []


def runs_below(folder: Path) -> list[Path]:
    """The runs in a folder, and those of each seed one level further down, by name."""
    found = [*folder.glob(f"*/{CONFIG_NAME}"), *folder.glob(f"*/*/{CONFIG_NAME}")]
    return sorted(path.parent for path in found)


def _is_locked(run: Path) -> bool:
    """Whether a process holds the run.  Shared and for a moment, so as to disturb none."""
    try:
        with (run / LOCK_NAME).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no such file, or a file system without locks
        return False
    return False


def _is_finished(run: Path, settings: Mapping[str, Any], state: Mapping[str, Any]) -> bool:
    if state["evaluated"] != state["update"]:
        return False
    options = _run_options(settings)
    steps, minutes = options.get("steps"), options.get("minutes")
    by_steps = bool(steps) and state["update"] >= steps
    by_time = minutes is not None and state["elapsed"] >= 60 * minutes
    patience = options.get("stopping-criterion", "").rpartition(",")[2]  # METRIC,N
    by_criterion = bool(patience) and state["validation"]["n_without"] >= int(patience)
    return by_steps or by_time or by_criterion or (run / RESULTS_NAME).is_file()


def _run_options(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = settings.get("train", settings.get("finetune", {}))
    return found


def _trains(settings: Mapping[str, Any]) -> str:
    if "train" not in settings:
        return ", ".join(name for name in settings if name not in ("finetune", "optimizer"))
    options = settings["train"]
    layers = options.get("layer", [])
    return ", ".join(options["objective"]) + (f" + {', '.join(layers)}" if layers else "")
