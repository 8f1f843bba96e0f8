"""The contract of a downstream task: labelled texts, and how predictions are scored.

A task reads files and knows its metrics; encoding, the classification head, training and
prediction are the core's.  Nothing here imports torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from xlm_plugins.contracts import scores
from xlm_plugins.core.errors import DataError

Split = Literal["train", "valid", "test"]
Values = npt.NDArray[np.int64] | npt.NDArray[np.float32]


@dataclass(frozen=True)
class LabelledTexts:
    """One part of a task's data: rows of one language, with or without labels.

    :param split: what the part is for.
    :param language: code of the texts' language.
    :param texts: one column, or two for tasks on two sentences; one text per row.
    :param labels: as in the file, one per row; None if they are not published.
    :param file: where the rows come from, for messages and predictions.
    :param lines: the line of each row in the file, from 1.
    :param name: the part's name in metrics, ``valid_NAME_xnli_acc``; the language if empty.
    """

    split: Split
    language: str
    texts: tuple[Sequence[str], ...]
    labels: Sequence[str] | None
    file: Path
    lines: Sequence[int]
    name: str = ""

    @property
    def n_rows(self) -> int:
        return len(self.lines)

    @property
    def title(self) -> str:
        """The part's name in metrics."""
        return self.name or self.language


@dataclass(frozen=True)
class TaskData:
    """All parts of a task's data, checked against each other.

    :param parts: several parts of a split, such as one per language, have different titles.
    :param classes: the labels in order of their numbers; empty for a regression, whose labels
        are numbers.
    :raises DataError: nothing to train on, a part without rows, parts with different numbers of
        columns, or a label that is not a class or number (with file and line).
    """

    parts: tuple[LabelledTexts, ...]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        for part in self.parts:
            _check_part(part, self.parts[0])
        if not (train := self.of("train")) or any(part.labels is None for part in train):
            raise DataError("the task has no labelled training data", expected="a train split")
        if len(self.classes) == 1:
            raise DataError(
                f"{train[0].file}: the only label is {self.classes[0]!r}: nothing to learn",
                expected="two classes or more",
            )
        for split in ("train", "valid", "test"):
            titles = [part.title for part in self.of(split)]
            if len(set(titles)) < len(titles):
                raise DataError(
                    f"two {split} parts of the task have the same title: {', '.join(titles)}",
                    expected="one file per language of a split",
                )
        self.targets  # noqa: B018  # reads every label, so that a bad one is reported now

    def of(self, split: str) -> list[LabelledTexts]:
        """The parts of a split, in order."""
        return [part for part in self.parts if part.split == split]

    @cached_property
    def targets(self) -> list[Values | None]:
        """The labels of each part as numbers: classes as int64, values as float32."""
        number_of = {label: number for number, label in enumerate(self.classes)}
        return [_targets(part, number_of) for part in self.parts]


class Task(ABC):
    """A downstream task, for `xlm finetune NAME`.

    :param options: the component's options object.
    """

    name: str = ""
    """The name of the model's head and, in metrics, of the task."""
    metrics: tuple[str, ...] = ()
    """The names of the metrics that `measure` returns; the best model is chosen by the first."""

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def read(self) -> TaskData:
        """Read the files that the options name.

        :raises DataError: a file is missing or damaged (with file and line).
        :raises OptionError: the options do not name what is needed.
        """

    def measure(self, targets: Values, predicted: Values) -> Mapping[str, float]:
        """Score predictions; by default accuracy in percent or, for a regression, correlation.

        :param targets: numbers of classes, or values. Shape: (n_rows,)
        :param predicted: the same, predicted. Shape: (n_rows,)
        :returns: by the names in ``metrics``; higher is better, 100 is perfect.
        """
        if np.issubdtype(targets.dtype, np.floating):
            return {"pearson": scores.pearson(targets, predicted)}
        return {"acc": scores.accuracy(targets, predicted)}

    def write(  # noqa: B027  # most tasks submit nothing
        self, part: LabelledTexts, predicted: Sequence[str], folder: Path
    ) -> None:
        """Write predictions in the format for submission; by default, nothing.

        :param part: of the test split.
        :param predicted: a class or number for each row.
        :param folder: an existing folder of the run.
        """


def _check_part(part: LabelledTexts, first: LabelledTexts) -> None:
    if not part.n_rows:
        raise DataError(f"{part.file} has no rows", expected="one row per line")
    if len(part.texts) != len(first.texts):
        raise DataError(
            f"{part.file} has {len(part.texts)} text(s) per row, {first.file} {len(first.texts)}",
            expected="the same number in every file of a task",
        )


def _targets(part: LabelledTexts, number_of: Mapping[str, int]) -> Values | None:
    if part.labels is None:
        return None
    if not number_of:
        return np.array(
            [_value(part, row, label) for row, label in enumerate(part.labels)], np.float32
        )
    for row, label in enumerate(part.labels):
        if label not in number_of:
            raise DataError(
                f"{part.file}, line {part.lines[row]}: the label {label!r} is not among those of "
                "the training data",
                expected=_some_of(number_of),
            )
    return np.array([number_of[label] for label in part.labels], np.int64)


def _some_of(classes: Mapping[str, int]) -> str:
    """The classes; only the first if there are very many, which may be numbers."""
    shown = ", ".join(list(classes)[:20])
    return f"one of {shown}" if len(classes) <= 20 else f"one of {len(classes)}: {shown}, ..."


def _value(part: LabelledTexts, row: int, label: str) -> float:
    try:
        value = float(label)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise DataError(
            f"{part.file}, line {part.lines[row]}: the label {label!r} is not a number",
            expected="a number, since the task is a regression",
        )
    return value
