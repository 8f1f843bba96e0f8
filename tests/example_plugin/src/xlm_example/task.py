"""The task: labelled texts in a folder, a file for each split and language."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from xlm_plugins import DataError, LabelledTexts, Task, TaskData, read_table

from xlm_example import ExampleTaskOptions

SPLITS: tuple[Literal["train", "valid", "test"], ...] = ("train", "valid", "test")


class ExampleTask(Task):
    """Reads SPLIT.LANGUAGE.tsv, with the columns ``label`` and ``text``."""

    name = "example-task"  # of the model's head, and in metrics: valid_en_example-task_acc
    metrics = ("acc",)  # what `measure` returns: by default, the accuracy
    options: ExampleTaskOptions

    def read(self) -> TaskData:
        """All parts; the classes are the labels of the training files."""
        parts = tuple(self._parts())
        labels = {label for part in parts if part.split == "train" for label in part.labels or ()}
        return TaskData(parts, classes=tuple(sorted(labels)))

    def _parts(self) -> list[LabelledTexts]:
        parts = []
        for split in SPLITS:
            files = sorted(Path(self.options.data).glob(f"{split}.*.tsv"))
            # Users see this error: what was given, what would work, a hint.
            if not files and split != "test":
                raise DataError(
                    f"{self.options.data!r} has no labelled texts for {split}",
                    expected=f"a folder with files such as {split}.en.tsv",
                    remedy="--example-task.data FOLDER",
                )
            for file in files:
                table = read_table(file)
                labels, texts = table.column("label"), table.column("text")
                language = file.name.split(".")[1]
                parts.append(LabelledTexts(split, language, (texts,), labels, file, table.lines))
        return parts
