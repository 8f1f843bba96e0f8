"""`check_task`: for each promise, a task that breaks it is refused."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from xlm_plugins import (
    Component,
    LabelledTexts,
    OptionError,
    Task,
    TaskData,
    accuracy,
    option,
    read_table,
)
from xlm_plugins.testing import BrokenPromiseError, check_task, task_promises


@dataclass(frozen=True)
class FolderOptions:
    folder: str | None = option(None, "folder with train.tsv, valid.tsv, a.tsv and b.tsv")
    values: bool = option(False, "labels are numbers")


class Sound(Task):
    """Reads four files; keeps all promises."""

    name = "sound"
    metrics = ("acc",)

    def read(self):
        if self.options.folder is None:
            raise OptionError("no folder")
        parts = [self.part("train"), self.part("valid"), self.part("a"), self.part("b")]
        classes = () if self.options.values else ("1", "2")
        return TaskData(tuple(parts), classes)

    def part(self, name):
        file = Path(self.options.folder, f"{name}.tsv")
        table = read_table(file)
        split = name if name in ("train", "valid") else "test"
        labels, texts = table.column("label"), table.column("text")
        return LabelledTexts(split, "xa", (texts,), labels, file, table.lines, name)

    def write(self, part, predicted, folder):
        (folder / f"{part.title}.txt").write_text("\n".join(predicted))


class Values(Sound):
    """A regression; keeps all promises."""

    metrics = ("pearson",)


class WithoutName(Sound):
    name = ""


class WithoutMetrics(Sound):
    metrics = ()


class WithMetricTwice(Sound):
    metrics = ("acc", "acc")


class WithStrangeMetric(Sound):
    metrics = ("F1 score",)


class FailsWithoutOptions(Sound):
    def read(self):
        return super().read() if self.options.folder else open(self.options.folder)


class WithoutValid(Sound):
    def read(self):
        data = super().read()
        return replace(data, parts=tuple(p for p in data.parts if p.split != "valid"))


class WithoutLabels(Sound):
    def part(self, name):
        part = super().part(name)
        return replace(part, labels=None) if name == "valid" else part


class ReadsNothing(Sound):
    def read(self):
        super().read()


class LosesRow(Sound):
    def part(self, name):
        part = super().part(name)
        return replace(part, texts=(part.texts[0][1:],))


class CountsFromZero(Sound):
    def part(self, name):
        part = super().part(name)
        return replace(part, lines=range(part.n_rows))


class HasThreeTexts(Sound):
    def part(self, name):
        part = super().part(name)
        return replace(part, texts=part.texts * 3)


class HasTextOfBytes(Sound):
    def part(self, name):
        part = super().part(name)
        return replace(part, texts=([text.encode() for text in part.texts[0]],))


class HasFileOfText(Sound):
    def part(self, name):
        part = super().part(name)
        return replace(part, file=str(part.file))


COUNTER = itertools.count()


class ReadsOnce(Sound):
    def read(self):
        data = super().read()
        self.n_read = getattr(self, "n_read", 0) + 1
        return replace(data, parts=data.parts[: 5 - self.n_read])


class DrawsByChance(Sound):
    def part(self, name):
        part = super().part(name)
        return replace(part, texts=([f"{next(COUNTER)}" for _ in part.texts[0]],))


class HoldsFunction(Sound):
    def __init__(self, options):
        super().__init__(options)
        self.clean = lambda text: text


class ForgetsWhatItKnew(Sound):
    def __getstate__(self):
        return {"options": self.options, "wrong": True}

    def measure(self, targets, predicted):
        found = super().measure(targets, predicted)
        return {"acc": found["acc"] / 2} if hasattr(self, "wrong") else found


class MeasuresMore(Sound):
    def measure(self, targets, predicted):
        return {**super().measure(targets, predicted), "loss": 0.0}


class MeasuresNothing(Sound):
    def measure(self, targets, predicted):
        found = accuracy(targets, predicted)
        return {"acc": found if len(set(predicted.tolist())) > 1 else np.nan}


class MeasuresShares(Sound):
    def measure(self, targets, predicted):
        return {"acc": accuracy(targets, predicted) / 100}


class MeasuresErrors(Sound):
    def measure(self, targets, predicted):
        return {"acc": 100 - accuracy(targets, predicted)}


class CannotTell(Sound):
    def measure(self, targets, predicted):
        return {"acc": 100.0}


class WeighsByPlace(Sound):
    def measure(self, targets, predicted):
        weights = np.arange(len(targets))
        return {"acc": 100 * float(np.average(targets == predicted, weights=weights))}


class SortsInPlace(Sound):
    def measure(self, targets, predicted):
        found = super().measure(targets, predicted)
        predicted.sort()
        return found


class WritesWhereItStands(Sound):
    def write(self, part, predicted, folder):
        Path("predictions.txt").write_text("".join(predicted))


class WritesBesideItsFolder(Sound):
    def write(self, part, predicted, folder):
        folder.with_name("more.txt").write_text("".join(predicted))


class WritesBesideItsFiles(Sound):
    def write(self, part, predicted, folder):
        part.file.with_name("cache.txt").write_text("".join(predicted))


class WritesOneFile(Sound):
    def write(self, part, predicted, folder):
        (folder / "test.txt").write_text(part.title)


BROKEN = [
    (WithoutName, "names_itself_and_its_metrics", "its name is ''"),
    (WithoutMetrics, "names_itself_and_its_metrics", r"\(\)"),
    (WithMetricTwice, "names_itself_and_its_metrics", "twice"),
    (WithStrangeMetric, "names_itself_and_its_metrics", "F1 score"),
    (FailsWithoutOptions, "refuses_options_that_name_nothing", "TypeError"),
    (WithoutValid, "reads_what_is_needed", "no valid part"),
    (WithoutLabels, "reads_what_is_needed", "no valid part"),
    (ReadsNothing, "reads_what_is_needed", "None, not a TaskData"),
    (LosesRow, "reads_whole_parts", "7 values for 8 rows"),
    (CountsFromZero, "reads_whole_parts", "numbers from 1"),
    (HasThreeTexts, "reads_whole_parts", "3 texts per row"),
    (HasTextOfBytes, "reads_whole_parts", "not a str"),
    (HasFileOfText, "reads_whole_parts", "not a Path"),
    (ReadsOnce, "reads_the_same_again", "3 parts by another instance, the second time"),
    (DrawsByChance, "reads_the_same_again", "the train part 'train' is different"),
    (HoldsFunction, "travels_to_processes", "pickle"),
    (ForgetsWhatItKnew, "travels_to_processes", "unpickled"),
    (MeasuresMore, "measures_what_it_names", "'loss'"),
    (MeasuresNothing, "measures_what_it_names", "acc = nan"),
    (MeasuresShares, "gives_100_for_what_is_perfect", r"acc = 1\.0"),
    (MeasuresErrors, "gives_100_for_what_is_perfect", r"acc = 0\.0"),
    (CannotTell, "gives_100_for_what_is_perfect", "although some are wrong"),
    (WeighsByPlace, "judges_rows_in_any_order", "for reordered rows"),
    (SortsInPlace, "judges_rows_in_any_order", "modifies its arguments"),
    (WritesWhereItStands, "writes_into_its_folder_alone", r"predictions\.txt.* appeared"),
    (WritesBesideItsFolder, "writes_into_its_folder_alone", r"more\.txt.* appeared"),
    (WritesBesideItsFiles, "writes_into_its_folder_alone", r"cache\.txt.* changed"),
    (WritesOneFile, "writes_each_part_for_itself", r"test\.txt.* is replaced by the part 'b'"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = "".join(f"{1 + row % 2}\ttext {row}\n" for row in range(8))
    for name in ("train", "valid", "a", "b"):
        (tmp_path / f"{name}.tsv").write_text(f"label\ttext\n{rows}")
    return tmp_path


def component(target: type) -> Component:
    return Component("x", f"{__name__}:{target.__name__}", FolderOptions, "for a test")


@pytest.mark.parametrize(
    ("task", "promise", "found"), BROKEN, ids=lambda value: getattr(value, "__name__", None)
)
def test_a_broken_promise_is_named(task: type, promise: str, found: str, folder: Path) -> None:
    with pytest.raises(BrokenPromiseError, match=found) as error:
        check_task(component(task), folder=str(folder))
    assert error.value.promise == promise


@pytest.mark.parametrize(("task", "values"), [(Sound, False), (Values, True)])
def test_a_valid_task_is_accepted(task: type, values: bool, folder: Path) -> None:
    check_task(component(task), folder=str(folder), values=values)


def test_every_promise_has_a_test() -> None:
    promises = {each.name for each in task_promises.PROMISES}
    assert promises == {promise for _, promise, _ in BROKEN}
