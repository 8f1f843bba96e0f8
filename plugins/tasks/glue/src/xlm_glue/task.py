"""A task of GLUE: its official files read, its official metrics, and the files to submit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from xlm_glue import GlueOptions
from xlm_glue.benchmark import DIAGNOSTIC_FILES, SUBMISSIONS, TASKS
from xlm_glue.files import read_whole_rows
from xlm_plugins import (
    DataError,
    LabelledTexts,
    OptionError,
    Task,
    TaskData,
    accuracy,
    f1,
    matthews,
    pearson,
    read_table,
    spearman,
)

if TYPE_CHECKING:
    import numpy.typing as npt

Split = Literal["train", "valid", "test"]
MEASURES: Mapping[str, Callable[[npt.NDArray[Any], npt.NDArray[Any]], float]] = {
    "acc": accuracy,
    "f1": f1,
    "mcc": matthews,
    "pearson": pearson,
    "spearman": spearman,
}


class Glue(Task):
    """One task of the benchmark, whose name metrics and head carry.

    :param options: the task's name and the folder.
    :raises OptionError: no task is named.
    """

    options: GlueOptions

    def __init__(self, options: GlueOptions) -> None:
        super().__init__(options)
        if options.task is None:
            raise OptionError(
                "glue needs the name of a task",
                expected=f"one of {', '.join(TASKS)}",
                remedy="--glue.task mrpc",
            )
        self.name = options.task
        self.task = TASKS[options.task]
        self.metrics = self.task.metrics

    def read(self) -> TaskData:
        """Read train, dev and test files; the labels of the test sets are not public."""
        folder, task = self._folder(), self.task
        tested = () if task.diagnostic == "only" else task.sections
        parts = (
            self._part("train", folder / "train.tsv"),
            *(self._part("valid", folder / f"dev{end}.tsv", end) for end in task.sections),
            *(self._part("test", folder / f"test{end}.tsv", end) for end in tested),
            *self._diagnostic(folder.parent),
        )
        return TaskData(parts, task.classes)

    def measure(
        self, targets: npt.NDArray[Any], predicted: npt.NDArray[Any]
    ) -> Mapping[str, float]:
        """The official metrics, times 100."""
        return {name: MEASURES[name](targets, predicted) for name in self.metrics}

    def write(self, part: LabelledTexts, predicted: Sequence[str], folder: Path) -> None:
        """Write a submission to the benchmark: the index of each row, from 0, and its prediction.

        Similarities are clipped to 0 to 5 and have three decimals.
        """
        if not self.task.classes:
            predicted = [f"{min(max(float(value), 0.0), 5.0):.3f}" for value in predicted]
        rows = [f"{index}\t{label}\n" for index, label in enumerate(predicted)]
        name = SUBMISSIONS.get(part.name, self.task.folder)
        text = "".join(["index\tprediction\n", *rows])
        (folder / f"{name}.tsv").write_text(text, encoding="utf-8", newline="\n")

    def _folder(self) -> Path:
        """The task's folder: inside the given one, or that itself."""
        if not self.options.data:
            raise OptionError("glue needs the benchmark's files", remedy="--glue.data FOLDER")
        root = Path(self.options.data).absolute()
        inner = root / self.task.folder
        if inner.is_dir():
            return inner
        if (root / "train.tsv").is_file():
            return root
        raise DataError(
            f"there is no {inner}",
            expected=f"the benchmark's folders as distributed, {self.task.folder} among them",
            remedy="--glue.data FOLDER",
        )

    def _part(self, split: Split, file: Path, end: str = "") -> LabelledTexts:
        """A part of the data; labels of test sets are not read."""
        task, labelled = self.task, split != "test"
        if labelled and task.broken:
            table = read_whole_rows(file)
        else:
            table = read_table(file, task.header if labelled and task.header else None)
        texts = tuple(table.column(column) for column in task.texts)
        labels = table.column(task.label) if labelled else None
        return LabelledTexts(split, "en", texts, labels, file, table.lines, end.removeprefix("_"))

    def _diagnostic(self, root: Path) -> list[LabelledTexts]:
        """AX; it may be missing, unless it is all that is asked for."""
        if self.task.diagnostic == "no":
            return []
        files = [root / name for name in DIAGNOSTIC_FILES if (root / name).is_file()]
        if not files and self.task.diagnostic == "only":
            raise DataError(
                f"there is no {root / DIAGNOSTIC_FILES[0]}",
                expected=f"AX's sentences in one of {', '.join(DIAGNOSTIC_FILES)}",
            )
        return [self._part("test", file, "_ax") for file in files[:1]]
