"""Why a classifier may have learnt nothing: the most frequent complaint about fine-tuning.

A head that always names the most frequent class reaches 33.3 % on XNLI, whatever the encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xlm_plugins.config.finetune_settings import FinetuneSettings
from xlm_plugins.contracts.task import Values

ONE_CLASS = 0.99
"""From this share of the predictions on, a class counts as the only one predicted."""


@dataclass(frozen=True)
class Majority:
    """A classifier compared with always predicting the most frequent class.

    :param label: the most frequent class.
    :param share: of that class among the targets, in percent.
    :param accuracy: of the classifier, in percent.
    :param named: share of the class that the classifier predicts most, in percent.
    :param error: standard error of the accuracy at chance level, in percentage points.
    """

    label: str
    share: float
    accuracy: float
    named: float
    error: float

    @classmethod
    def of(cls, targets: Values, predicted: Values, classes: Sequence[str]) -> Majority:
        """Compare predictions with always predicting the targets' most frequent class."""
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
        """Whether one class is predicted throughout, and should not be."""
        return self.named >= 100 * ONE_CLASS > self.share

    @property
    def at_chance(self) -> bool:
        """Whether the accuracy is within two standard errors of the majority class's share."""
        return self.accuracy <= self.share + 2 * self.error < 100


@dataclass(frozen=True)
class Finding:
    """How a part of the data went.

    :param title: of the part.
    :param trained: whether its language is one of the training data.
    """

    title: str
    majority: Majority
    trained: bool

    @property
    def is_bad(self) -> bool:
        """Whether the classifier is no better than always predicting one class."""
        return self.majority.collapsed or self.majority.at_chance


def remarks(findings: Sequence[Finding], settings: FinetuneSettings) -> list[str]:
    """The bad findings as text, each set of likely causes once; none if all is well."""
    has_learnt = any(finding.trained and not finding.is_bad for finding in findings)
    headlines: dict[tuple[str, ...], list[str]] = {}
    for finding in findings:
        if finding.is_bad:
            # If nothing was learnt, there is nothing to transfer.
            transfers = has_learnt and not finding.trained and not finding.majority.collapsed
            causes = _NO_TRANSFER if transfers else _no_learning(settings)
            headlines.setdefault(causes, []).append(_headline(finding))
    return [
        line
        for causes, titles in headlines.items()
        for line in (*titles, *(f"  perhaps {cause}" for cause in causes))
    ]


def _headline(finding: Finding) -> str:
    majority = finding.majority
    text = (
        f"{finding.title}: {majority.accuracy:.1f} % correct, where always predicting "
        f"{majority.label!r} gives {majority.share:.1f} %"
    )
    if majority.collapsed:
        text += f"; {majority.named:.0f} % of the predictions are one class"
    return text


_NO_TRANSFER = (
    "the model does not relate this language to the training languages: pretrain it on both, "
    "with parallel text (tlm) if there is any",
    "the rows are not in the language given for them, so that another language's embedding is used",
)


def _no_learning(settings: FinetuneSettings) -> tuple[str, ...]:
    """Why nothing may have been learnt."""
    options, optimizer = settings.finetune, settings.optimizer
    length = f"{options.steps:,} updates" if options.steps else f"{options.epochs:g} epochs"
    frozen = "--train-only" if options.train_only else f"--layers {options.layers}"
    is_frozen = options.train_only or options.layers != "0:_1"
    return (
        *([f"too much of the encoder is frozen: {frozen}"] if is_frozen else []),
        f"the learning rate is too high: --lr {optimizer.lr:g} and --head-lr "
        f"{optimizer.head_lr:g}; try a fifth, or more --warmup",
        "the rows are not in the language given for them",
        f"training was too short: {length} with {options.batch_sentences} rows per batch",
    )
