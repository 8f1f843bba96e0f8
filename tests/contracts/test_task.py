"""Tasks: all of their data is checked before anything is built, and errors name file and line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xlm_plugins import DataError, LabelledTexts, Task, TaskData


def part(split: str, labels: Sequence[str] | None, language: str = "en", **changes: Any) -> Any:
    """A part with one row per label, from line 2 on."""
    n_rows = 3 if labels is None else len(labels)
    texts = ([f"text {row}" for row in range(n_rows)],)
    given = {"texts": texts, "file": Path(f"{split}.{language}.tsv"), **changes}
    return LabelledTexts(split, language, labels=labels, lines=range(2, 2 + n_rows), **given)


def refusal(*parts: LabelledTexts, classes: tuple[str, ...] = ("no", "yes")) -> str:
    with pytest.raises(DataError) as error:
        TaskData(parts, classes)
    return str(error.value)


TRAIN = part("train", ["yes", "no", "yes"])


def test_labels_become_numbers_of_classes() -> None:
    data = TaskData((TRAIN, part("valid", ["no"], "fr"), part("test", None)), ("no", "yes"))
    train, valid, test = data.targets
    assert train.tolist() == [1, 0, 1]
    assert (train.dtype, valid.tolist(), test) == (np.int64, [0], None)
    assert [one.n_rows for one in data.of("train")] == [3]
    assert [one.language for one in data.of("valid")] == ["fr"]


def test_labels_of_a_regression_are_values() -> None:
    (targets,) = TaskData((part("train", ["1", "-2.5", "3e1"]),), ()).targets
    assert (targets.tolist(), targets.dtype) == ([1, -2.5, 30], np.float32)


def test_the_title_of_a_part_is_its_name_or_else_its_language() -> None:
    assert part("test", None, "fr").title == "fr"
    assert part("test", None, "en", name="mm").title == "mm"
    TaskData((TRAIN, part("test", None), part("test", None, name="mm")), ("no", "yes"))


def test_a_label_that_was_not_in_train_is_refused_with_its_line() -> None:
    told = refusal(TRAIN, part("test", ["no", "perhaps"]))
    assert told == (
        "test.en.tsv, line 3: the label 'perhaps' is not among those of the training data\n"
        "expected: one of no, yes"
    )


def test_of_very_many_classes_the_first_are_listed() -> None:
    classes = tuple(f"c{number}" for number in range(500))
    told = refusal(part("train", classes), part("test", ["d"]), classes=classes)
    assert told.endswith("expected: one of 500: " + ", ".join(classes[:20]) + ", ...")


@pytest.mark.parametrize("label", ["much", "", "nan", "inf", "1,5"])
def test_a_label_that_is_not_a_number_is_refused_with_its_line(label: str) -> None:
    told = refusal(part("train", ["0", "1"]), part("valid", ["2", label]), classes=())
    assert told.startswith(f"valid.en.tsv, line 3: the label {label!r} is not a number\n")


@pytest.mark.parametrize("empty", ["train", "valid", "test"])
def test_a_part_without_rows_is_refused(empty: str) -> None:
    others = [TRAIN] if empty != "train" else []
    assert refusal(*others, part(empty, [])).startswith(f"{empty}.en.tsv has no rows")


def test_nothing_to_learn_is_refused() -> None:
    assert "no labelled training data" in refusal(part("valid", ["no"]))
    assert "no labelled training data" in refusal(part("train", None))
    assert "no labelled training data" in refusal()
    told = refusal(part("train", ["no", "no"]), classes=("no",))
    assert "train.en.tsv: the only label is 'no'" in told


def test_files_of_one_text_and_of_two_are_refused_together() -> None:
    two = part("test", ["no"], texts=(["a"], ["b"]))
    assert "test.en.tsv has 2 text(s) per row, train.en.tsv 1" in refusal(TRAIN, two)


def test_parts_with_the_same_title_are_refused() -> None:
    assert "two test parts" in refusal(TRAIN, part("test", None), part("test", None))


class Plain(Task):
    def read(self) -> TaskData:
        return TaskData((TRAIN,), ("no", "yes"))


def test_by_default_the_metric_is_accuracy_or_correlation() -> None:
    classes, values = np.array([0, 1, 1, 1]), np.array([0, 1, 2, 3], np.float32)
    assert Plain(None).measure(classes, np.array([0, 1, 1, 0])) == {"acc": 75}
    assert Plain(None).measure(values, 1 - values) == {"pearson": pytest.approx(-100)}


def test_by_default_no_predictions_are_written(tmp_path: Path) -> None:
    Plain(None).write(TRAIN, ["no"] * 3, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_contract_of_tasks_does_not_import_torch() -> None:
    names = "Task, TaskData, LabelledTexts, Table, read_table, accuracy, spearman"
    script = f"import sys; from xlm_plugins import {names}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
