"""The contract of a downstream task: labelled texts, what is predicted, and how that is judged.

A task reads files and knows its metrics.  Everything else is the runtime's: encoding, the head,
training, and predicting.  Nothing here imports torch.
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
    :param texts: one column, or two where sentences are compared; each a text a row.
    :param labels: as the file has them, one a row; None where they are kept secret.
    :param file: where the rows come from, for messages and for predictions.
    :param lines: the line of each row in the file, from 1.
    :param name: of the part in metrics, ``valid_NAME_xnli_acc``; the language if empty.
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
        """What stands for the part in the names of its metrics."""
        return self.name or self.language


@dataclass(frozen=True)
class TaskData:
    """All parts of a task's data, checked against each other.

    :param parts: several of a split, say a test set a language, have different titles.
    :param classes: the labels in order of their numbers; empty for a regression, whose labels
        are numbers.
    :raises DataError: nothing to train on, a part without rows, another number of columns, a
        label that is no class or no number (with file and line).
    """

    parts: tuple[LabelledTexts, ...]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        for part in self.parts:
            _check_part(part, self.parts[0])
        if not (train := self.of("train")) or any(part.labels is None for part in train):
            raise DataError("the task has nothing labelled to train on", expected="a train split")
        if len(self.classes) == 1:
            raise DataError(
                f"{train[0].file}: the only label is {self.classes[0]!r}: nothing to learn",
                expected="two classes or more",
            )
        for split in ("train", "valid", "test"):
            titles = [part.title for part in self.of(split)]
            if len(set(titles)) < len(titles):
                raise DataError(
                    f"two {split} parts of the task have one title among {', '.join(titles)}",
                    expected="one file for each language of a split",
                )
        self.targets  # noqa: B018  # every label is read once, and refused now if at all

    def of(self, split: str) -> list[LabelledTexts]:
        """The parts of a split, in order."""
        return [part for part in self.parts if part.split == split]

    @cached_property
    def targets(self) -> list[Values | None]:
        """The labels of each part as numbers: classes as int64, values as float32."""
        number_of = {label: number for number, label in enumerate(self.classes)}
        return [_targets(part, number_of) for part in self.parts]


class Task(ABC):
    """A downstream task, by `xlm finetune NAME`.

    :param options: the component's options object.
    """

    name: str = ""
    """What metrics and the model's head are called."""
    metrics: tuple[str, ...] = ()
    """The names of what `measure` gives, the one that models are chosen by first."""

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def read(self) -> TaskData:
        """Read the files that the options name.

        :raises DataError: a file is missing or damaged (with file and line).
        :raises OptionError: the options do not name what is needed.
        """

    def measure(self, targets: Values, predicted: Values) -> Mapping[str, float]:
        """Judge predictions; the accuracy in percent, or for a regression the correlation.

        :param targets: numbers of classes, or values. Shape: (n_rows,)
        :param predicted: the same, predicted. Shape: (n_rows,)
        :returns: by the names in ``metrics``; more is better, 100 is perfect.
        """
        if np.issubdtype(targets.dtype, np.floating):
            return {"pearson": scores.pearson(targets, predicted)}
        return {"acc": scores.accuracy(targets, predicted)}

    def write(  # noqa: B027  # most tasks hand nothing in
        self, part: LabelledTexts, predicted: Sequence[str], folder: Path
    ) -> None:
        """Write predictions in the form in which they are to be handed in; by default nothing.

        :param part: of the test split.
        :param predicted: a class or a number for each row.
        :param folder: exists, and is the run's own.
        """


def _check_part(part: LabelledTexts, first: LabelledTexts) -> None:
    if not part.n_rows:
        raise DataError(f"{part.file} has no rows", expected="one row a line")
    if len(part.texts) != len(first.texts):
        raise DataError(
            f"{part.file} has {len(part.texts)} text(s) a row, and {first.file} {len(first.texts)}",
            expected="as many in every file of a task",
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
    """The classes; of a great many, which are numbers perhaps, the first few."""
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
            expected="a number, for a regression",
        )
    return value
