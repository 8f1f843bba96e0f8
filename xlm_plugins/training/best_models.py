"""Validation metrics: which model is the best so far, and when to stop."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xlm_plugins.config.training import RunOptions
from xlm_plugins.core.errors import OptionError


@dataclass
class Validation:
    """Tracks metrics over evaluations.

    :param metrics: as the user names them; with a leading ``_``, lower is better.
    :param criterion: ``METRIC,N``: stop after N evaluations without improvement.
    :raises OptionError: the criterion cannot be read.
    """

    metrics: Sequence[str]
    criterion: str | None = None
    best: dict[str, float] = field(default_factory=dict)
    n_without: int = 0

    def __post_init__(self) -> None:
        self._stopping, self._patience = _parse_criterion(self.criterion)
        stopping = [self._stopping] if self._stopping else []
        self._tracked = list(dict.fromkeys([*self.metrics, *stopping]))

    @classmethod
    def of(cls, options: RunOptions, default: Sequence[str], measured: Sequence[str]) -> Validation:
        """The metrics that a run's options name.

        :param default: metrics to track if the options name none.
        :param measured: the names of what evaluations measure, or shell patterns of them.
        :raises OptionError: a metric is not among them, or the criterion cannot be read.
        """
        validation = cls(options.validation_metrics or default, options.stopping_criterion)
        for metric in validation._tracked:
            name = metric.removeprefix("_")
            if not any(fnmatch.fnmatchcase(name, pattern) for pattern in measured):
                raise _not_measured(name, measured)
        return validation

    @property
    def names(self) -> list[str]:
        """The metrics that models are kept for, without the leading ``_``."""
        return [metric.removeprefix("_") for metric in self.metrics]

    @property
    def exhausted(self) -> bool:
        """Whether the stopping criterion is met."""
        return bool(self._patience) and self.n_without >= self._patience

    def take(self, measured: Mapping[str, float]) -> list[str]:
        """Take in an evaluation.

        :returns: the names of the metrics that models are kept for and that improved.
        :raises OptionError: a tracked metric was not measured.
        """
        better = [metric for metric in self._tracked if self._better(metric, measured)]
        for metric in better:
            self.best[metric] = measured[metric.removeprefix("_")]
        if self._stopping:
            self.n_without = 0 if self._stopping in better else self.n_without + 1
        return [metric.removeprefix("_") for metric in better if metric in self.metrics]

    def to_json(self) -> dict[str, Any]:
        return {"best": self.best, "n_without": self.n_without}

    def restore(self, tree: Mapping[str, Any]) -> None:
        """Continue from what `to_json` returned."""
        self.best = dict(tree["best"])
        self.n_without = tree["n_without"]

    def _better(self, metric: str, measured: Mapping[str, float]) -> bool:
        name = metric.removeprefix("_")
        if name not in measured:
            raise _not_measured(name, measured)
        if metric not in self.best:
            return True
        if metric.startswith("_"):
            return measured[name] < self.best[metric]
        return measured[name] > self.best[metric]


_REFERENCES = (
    "BLEU and chrF need references: add validation text of the pair to the source and prepare the "
    "data again (monolingual text is enough for a round trip such as en-fr-en); "
    "--translate-sentences must not be 0"
)


def _not_measured(name: str, measured: Iterable[str]) -> OptionError:
    have = ", ".join(measured)
    return OptionError(
        f"the validation metric {name!r} is not measured",
        expected=f"one of {have}, with a leading _ if lower is better"
        if have
        else "validation text for what is trained; the data has none",
        remedy=_REFERENCES if name.endswith(("_bleu", "_chrf")) else "",
    )


def _parse_criterion(text: str | None) -> tuple[str, int]:
    if text is None:
        return "", 0
    metric, _, number = text.rpartition(",")
    if not metric or not number.isdigit() or int(number) < 1:
        raise OptionError(
            f"--stopping-criterion {text!r} cannot be read",
            expected="METRIC,N such as _valid_mlm_ppl,10",
        )
    return metric, int(number)
