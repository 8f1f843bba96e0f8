"""Files of labelled texts: the meaning of columns, languages, and metrics."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from xlm_classify import ClassifyOptions, xlm_tasks
from xlm_classify.task import Classify

from xlm_plugins import DataError, OptionError, TaskData, XLMError
from xlm_plugins.data.prepare.embedded import embedded_sentences
from xlm_plugins.testing import check_task

ROWS = [("good", "this is fine"), ("bad", "this is not"), ("good", "I like it")]
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file of rows, in the format of its name, and return its path."""

    def write(name: str, rows: Any = ROWS, columns: tuple[str, ...] = ("label", "text")) -> str:
        path = tmp_path / name
        with path.open("w", encoding="utf-8", newline="") as file:
            if path.suffix == ".jsonl":
                file.writelines(json.dumps(dict(zip(columns, r, strict=True))) + "\n" for r in rows)
            else:
                delimiter = "," if path.suffix == ".csv" else "\t"
                lines = [columns, *rows] if columns else rows
                csv.writer(file, delimiter=delimiter).writerows(lines)
        return str(path)

    return write


def read(**options: Any) -> TaskData:
    (component,) = xlm_tasks()
    return Classify(component.options_from(options)).read()


def refusal(**options: Any) -> str:
    with pytest.raises(XLMError) as error:
        read(**options)
    return str(error.value)


@pytest.mark.parametrize("form", ["tsv", "csv", "jsonl"])
def test_the_contract(write: Write, form: str) -> None:
    files = {split: write(f"{split}.en.{form}") for split in ("train", "valid", "test")}
    check_task("classify", **files, metric="mcc")


def test_the_contract_with_numbers_for_pairs(write: Write) -> None:
    rows = [(f"{0.7 * row}", "one", "other") for row in range(5)]
    columns = ("label", "text", "text2")
    files = {split: write(f"{split}.en.tsv", rows, columns) for split in ("train", "valid")}
    tests = [write(f"test.{language}.tsv", rows, columns) for language in ("en", "fr")]
    check_task("classify", **files, test=tests, kind="regression")


def test_the_language_is_in_the_name_or_before_the_file(write: Write) -> None:
    given = f"de={write('reviews.csv')},{write('x.train.fr.jsonl')}"
    parts = read(train=write("a.en.tsv"), test=given).parts
    assert [(part.split, part.language) for part in parts] == [
        ("train", "en"), ("test", "de"), ("test", "fr"),
    ]  # fmt: skip
    assert [part.file.name for part in parts] == ["a.en.tsv", "reviews.csv", "x.train.fr.jsonl"]


def test_a_file_without_a_language_is_refused(write: Write) -> None:
    file = write("reviews.tsv")
    assert refusal(train=file) == (
        f"the language of {file} is not given\n"
        "expected: LANGUAGE=FILE, or a name such as train.en.tsv\n"
        f"hint: en={file}, if it is English"
    )


def test_classes_are_the_labels_of_the_training_files_in_order(write: Write) -> None:
    data = read(train=write("a.en.tsv"), valid=write("b.en.tsv", ROWS[:1]))
    assert data.classes == ("bad", "good")
    assert [None if t is None else t.tolist() for t in data.targets] == [[1, 0, 1], [1]]
    assert data.parts[0].lines == [2, 3, 4]


def test_all_columns_but_the_labels_are_texts_if_they_are_one_or_two(write: Write) -> None:
    rows = [("x", "good", "y"), ("z", "bad", "w")]
    (part,) = read(train=write("a.en.tsv", rows, ("one", "label", "two"))).parts
    assert part.texts == (("x", "z"), ("y", "w"))
    assert "has 0 columns besides 'label'" in refusal(
        train=write("a.en.tsv", [("x",), ("y",)], ("label",))
    )
    told = refusal(train=write("a.en.tsv", [("a", "b", "c", "d")], ("id", "label", "one", "two")))
    assert "has 3 columns besides 'label'\nexpected: one or two texts among id, one, two" in told
    assert "--classify.text" in told


def test_columns_are_chosen_by_name(write: Write) -> None:
    file = write("a.en.csv", [("1", "x", "y"), ("2", "z", "w")], ("stars", "title", "body"))
    (part,) = read(train=file, label="stars", text="body").parts
    assert (part.labels, part.texts) == (("1", "2"), (("y", "w"),))
    (part,) = read(train=file, label="stars", text="body,title").parts
    assert part.texts == (("y", "w"), ("x", "z"))


def test_the_text_columns_of_the_first_file_hold_for_all(write: Write) -> None:
    """Else pairs would be swapped in a file with its columns in another order."""
    train = write("a.en.tsv", [("bad", "x", "y"), ("good", "z", "w")], ("label", "one", "two"))
    turned = write("b.en.tsv", [("good", "y", "x")], ("label", "two", "one"))
    assert read(train=train, test=turned).of("test")[0].texts == (("x",), ("y",))


def test_a_file_whose_first_line_is_a_row(write: Write) -> None:
    file = write("a.en.tsv", columns=())
    (part,) = read(train=file, columns="label,text").parts
    assert (part.labels, part.lines) == (("good", "bad", "good"), [1, 2, 3])
    told = refusal(train=file)
    assert "has no column 'label'\nexpected: one of good, this is fine\n" in told
    assert "--classify.columns label,text" in told


def test_a_missing_column_is_reported_with_those_there_are(write: Write) -> None:
    files = {"train": write("a.en.tsv"), "test": write("b.fr.tsv", columns=("label", "texte"))}
    told = refusal(**files)
    assert "b.fr.tsv has no column 'text'\nexpected: one of label, texte\n" in told
    assert "has no column 'sentence'" in refusal(train=files["train"], text="sentence")


def test_a_label_that_was_not_in_train_is_reported_with_its_line(write: Write) -> None:
    told = refusal(train=write("a.en.tsv"), test=write("b.en.tsv", [*ROWS, ("fair", "so so")]))
    assert "b.en.tsv, line 5: the label 'fair' is not among those of the training data" in told


def test_a_label_that_is_not_a_number_is_reported_with_its_line(write: Write) -> None:
    told = refusal(train=write("a.en.tsv", [("1.5", "x"), ("much", "y")]), kind="regression")
    assert "a.en.tsv, line 3: the label 'much' is not a number" in told


def test_files_without_rows_are_refused(write: Write) -> None:
    empty = write("b.en.tsv", [])
    assert "b.en.tsv has no rows" in refusal(train=write("a.en.tsv"), test=empty)
    assert "b.en.tsv has no rows" in refusal(train=empty)
    assert "c.en.tsv is empty" in refusal(train=write("c.en.tsv", [], ()))


def test_nothing_to_train_on_is_refused() -> None:
    assert "--classify.train en=FILE" in refusal()


def test_numbers_have_other_metrics_than_classes() -> None:
    values = np.array([0.0, 1.0, 2.0], np.float32)
    regression = Classify(ClassifyOptions(kind="regression"))
    assert regression.measure(values, values**3) == {
        "pearson": pytest.approx(100 * 8 / 76**0.5),
        "spearman": pytest.approx(100),
    }
    classes = np.array([0, 1, 2, 2])
    found = Classify(ClassifyOptions()).measure(classes, np.array([0, 2, 2, 2]))
    assert found == {
        "acc": 75,
        "macro_f1": pytest.approx(100 * (1 + 0 + 0.8) / 3),
        "mcc": pytest.approx(100 * 5 / 60**0.5),
    }


def test_the_model_is_chosen_by_the_metric_that_is_named() -> None:
    assert Classify(ClassifyOptions()).metrics == ("acc", "macro_f1", "mcc")
    assert Classify(ClassifyOptions(metric="mcc")).metrics == ("mcc", "acc", "macro_f1")
    regression = ClassifyOptions(kind="regression", metric="spearman")
    assert Classify(regression).metrics == ("spearman", "pearson")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"metric": "pearson"}, "'pearson' does not measure a classification"),
        ({"kind": "regression", "metric": "acc"}, "one of pearson, spearman"),
        ({"kind": "ranking"}, "classification, regression"),
        ({"text": "a,b,c"}, "names 3 columns"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, str], told: str) -> None:
    (component,) = xlm_tasks()
    with pytest.raises(OptionError, match=told):
        component.options_from(options)


def test_predictions_are_written_beside_labels_and_texts(write: Write, tmp_path: Path) -> None:
    rows = [("good", 'a "b", c\nd'), ("bad", "e\tf")]
    task = Classify(
        ClassifyOptions(train=(write("a.en.csv", rows),), test=(f"fr={tmp_path}/a.en.csv",))
    )
    task.write(task.read().of("test")[0], ["bad", "bad"], tmp_path)
    with (tmp_path / "test.fr.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"line": "2", "label": "good", "predicted": "bad", "text": 'a "b", c\nd'},
            {"line": "4", "label": "bad", "predicted": "bad", "text": "e\tf"},
        ]


@pytest.mark.parametrize(("columns", "classes"), [("label,text", "abcdefg"), ("label,a,b", "abc")])
def test_real_texts_are_read_as_they_are(columns: str, classes: str, tmp_path: Path) -> None:
    """Files without a header, whose texts have quotation marks, some at the start or unpaired."""
    n_texts, given, texts = columns.count(","), [], {}
    for language in ("en", "fr", "de"):
        verses = embedded_sentences("valid", language)
        texts[language] = (verses[1:], verses[:-1])[:n_texts]
        rows = zip(itertools.cycle(classes), *texts[language], strict=False)
        path = tmp_path / f"real.valid.{language}.tsv"
        path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
        given.append(str(path))
    data = read(train=given[0], test=given, columns=columns)
    assert [part.title for part in data.of("test")] == ["en", "fr", "de"]
    assert data.classes == tuple(classes)
    assert len({tuple(part.labels or ()) for part in data.parts}) == 1
    for part in data.parts:
        assert [list(column) for column in part.texts] == [*texts[part.language]]


def test_missing_files_are_data_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no file .*a\.en\.tsv"):
        read(train=f"{tmp_path}/a.en.tsv")
