"""Any file of labelled texts as a downstream task."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from xlm_classify import METRICS, ClassifyOptions
from xlm_plugins import (
    DataError,
    LabelledTexts,
    OptionError,
    Table,
    Task,
    TaskData,
    accuracy,
    macro_f1,
    matthews,
    pearson,
    read_table,
    spearman,
)

SPLITS: tuple[Literal["train", "valid", "test"], ...] = ("train", "valid", "test")
SCORES = {
    "acc": accuracy,
    "macro_f1": macro_f1,
    "mcc": matthews,
    "pearson": pearson,
    "spearman": spearman,
}
_LANGUAGE_GIVEN = re.compile(r"(?P<language>\w+)=(?P<file>.+)")
_LANGUAGE_IN_NAME = re.compile(r".+\.(?P<language>\w+)\.(tsv|txt|csv|jsonl)(\.\w+)?")


class Classify(Task):
    """Classes of texts or pairs of texts, or numbers for them.

    Classes are the labels of the training files, in alphabetical order.
    """

    name = "classify"
    options: ClassifyOptions

    def __init__(self, options: ClassifyOptions) -> None:
        super().__init__(options)
        names = METRICS[options.kind]
        chosen_by = options.metric or names[0]
        self.metrics = (chosen_by, *(name for name in names if name != chosen_by))

    def read(self) -> TaskData:
        if not self.options.train:
            raise OptionError(
                "classify has nothing to train on",
                expected="files of labelled texts",
                remedy="--classify.train en=FILE; likewise --classify.valid and --classify.test",
            )
        parts = tuple(self._parts())
        labels = {label for part in parts if part.split == "train" for label in part.labels or ()}
        return TaskData(parts, () if self.options.kind == "regression" else tuple(sorted(labels)))

    def measure(
        self, targets: npt.NDArray[np.generic], predicted: npt.NDArray[np.generic]
    ) -> Mapping[str, float]:
        return {name: SCORES[name](targets, predicted) for name in self.metrics}

    def write(self, part: LabelledTexts, predicted: Sequence[str], folder: Path) -> None:
        """Write `SPLIT.TITLE.csv`: every row with its label and its prediction."""
        columns = [part.lines, part.labels or [""] * part.n_rows, predicted, *part.texts]
        names = ["line", "label", "predicted", "text", "text2"][: len(columns)]
        file = folder / f"{part.split}.{part.title}.csv"
        with file.open("w", encoding="utf-8", newline="") as opened:
            csv.writer(opened).writerows([names, *zip(*columns, strict=True)])

    def _parts(self) -> Iterator[LabelledTexts]:
        columns = self.options.text
        for split in SPLITS:
            for given in getattr(self.options, split):
                language, file = _language_and_file(given)
                table = read_table(file, self.options.columns or None)
                labels = self._column(table, self.options.label)
                columns = columns or self._all_but_labels(table)
                texts = tuple(self._column(table, name) for name in columns)
                yield LabelledTexts(split, language, texts, labels, file, table.lines)

    def _column(self, table: Table, name: str) -> Sequence[str]:
        """A column by its name.

        :raises DataError: there is none; says how to choose columns.
        """
        try:
            return table.column(name)
        except DataError as error:
            raise DataError(
                error.problem,
                expected=error.expected,
                remedy="choose columns by --classify.label and --classify.text; if a file's first "
                "line is not a header, name them: --classify.columns label,text",
            ) from error

    def _all_but_labels(self, table: Table) -> tuple[str, ...]:
        """The columns of texts if the user names none.

        :raises DataError: there are more than two, or none.
        """
        others = tuple(name for name in table.columns if name != self.options.label)
        if len(others) not in (1, 2):
            raise DataError(
                f"{table.file} has {len(others)} columns besides {self.options.label!r}",
                expected=f"one or two texts among {', '.join(others) or 'others'}",
                remedy="--classify.text NAME, or NAME,NAME for two to compare",
            )
        return others


def _language_and_file(given: str) -> tuple[str, Path]:
    """Parse ``en=FILE``, or a file whose name contains its language.

    :raises OptionError: no language is given.
    """
    if match := _LANGUAGE_GIVEN.fullmatch(given):
        return match["language"], Path(match["file"])
    if match := _LANGUAGE_IN_NAME.fullmatch(Path(given).name):
        return match["language"], Path(given)
    raise OptionError(
        f"the language of {given} is not given",
        expected="LANGUAGE=FILE, or a name such as train.en.tsv",
        remedy=f"en={given}, if it is English",
    )
