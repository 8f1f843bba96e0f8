"""Why a classifier may have learnt nothing: the report that users of such models most often write.

A head that never leaves the commonest class reaches 33.3 % on XNLI, whatever it is started from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xlm_plugins.config.finetune_settings import FinetuneSettings
from xlm_plugins.contracts.task import Values

ONE_CLASS = 0.99
"""Share of one class among the predictions from which on nothing else counts as predicted."""


@dataclass(frozen=True)
class Majority:
    """What always naming one class gives, beside what a classifier does.

    :param share: of the commonest class, in percent.
    :param accuracy: of the classifier, in percent.
    :param named: share of the class that the classifier names most, in percent.
    :param error: standard error of the accuracy, in percentage points.
    """

    label: str
    share: float
    accuracy: float
    named: float
    error: float

    @classmethod
    def of(cls, targets: Values, predicted: Values, classes: Sequence[str]) -> Majority:
        """Compare predictions with naming the commonest class of the truth always."""
        counts = np.bincount(targets, minlength=len(classes))
        share = counts.max() / len(targets)
        return cls(
            classes[int(counts.argmax())],
            100 * share,
            100 * float((targets == predicted).mean()),
            100 * np.bincount(predicted).max() / len(predicted),
            100 * float(np.sqrt(share * (1 - share) / len(targets))),
        )

    @property
    def collapsed(self) -> bool:
        """Whether one class is named throughout, and should not be."""
        return self.named >= 100 * ONE_CLASS > self.share

    @property
    def at_chance(self) -> bool:
        """Whether the accuracy is within two standard errors of the commonest class's share."""
        return self.accuracy <= self.share + 2 * self.error < 100


class Remarks:
    """What is no better than one class, each set of likely causes once."""

    def __init__(self, settings: FinetuneSettings) -> None:
        self._settings = settings
        self._learnt = False
        self._bad: list[tuple[str, Majority, bool]] = []

    def note(self, title: str, majority: Majority, *, trained: bool) -> None:
        """Take in how a part of the data went.

        :param title: of the part.
        :param trained: whether its language is one that is trained on.
        """
        if majority.collapsed or majority.at_chance:
            self._bad.append((title, majority, trained))
        elif trained:
            self._learnt = True

    def lines(self) -> list[str]:
        """The remarks as text; none if all is well."""
        told: dict[tuple[str, ...], list[str]] = {}
        for title, majority, trained in self._bad:
            # Where nothing was learnt there is nothing to transfer.
            transfer = self._learnt and not trained and not majority.collapsed
            causes = _NO_TRANSFER if transfer else _no_learning(self._settings)
            told.setdefault(causes, []).append(_headline(title, majority))
        return [
            line
            for causes, headlines in told.items()
            for line in (*headlines, *(f"  perhaps {cause}" for cause in causes))
        ]


def _headline(title: str, majority: Majority) -> str:
    told = (
        f"{title}: {majority.accuracy:.1f} % right, and always saying {majority.label!r} gives "
        f"{majority.share:.1f} %"
    )
    if majority.collapsed:
        told += f"; one class is {majority.named:.0f} % of what is predicted"
    return told


_NO_TRANSFER = (
    "the model does not relate this language to those of the training rows: pretrain it on both, "
    "with parallel text (tlm) where there is any",
    "the rows are not in the language that they are said to be in, so that they are read with "
    "another language's embedding",
)


def _no_learning(settings: FinetuneSettings) -> tuple[str, ...]:
    """Why nothing may have been learnt."""
    options, optimizer = settings.finetune, settings.optimizer
    length = f"{options.steps:,} updates" if options.steps else f"{options.epochs:g} epochs"
    frozen = "--train-only" if options.train_only else f"--layers {options.layers}"
    is_frozen = options.train_only or options.layers != "0:_1"
    return (
        *([f"too much of the encoder is frozen: {frozen}"] if is_frozen else []),
        f"the rate is too high: --lr {optimizer.lr:g} and --head-lr {optimizer.head_lr:g}; try a "
        "fifth, or more --warmup",
        "the rows are not in the language that they are said to be in",
        f"it was too short: {length} of {options.batch_sentences} rows a batch",
    )
