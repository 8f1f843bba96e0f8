"""GLUE: files in the official formats, with invented sentences: reading, metrics, training."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics
from xlm_glue import GlueOptions
from xlm_glue.benchmark import TASKS
from xlm_glue.task import Glue

from xlm_plugins import DataError, LabelledTexts, OptionError
from xlm_plugins.cli.main import main
from xlm_plugins.testing import check_task

TEXTS = (
    ("The cat sat on a mat.", "A cat was sitting."),
    ('She said "never" twice.', "She said nothing."),
    ("Rain fell all day long.", "It was dry."),
    ("Five men walked home.", "The men ran."),
)
PARSES = ["sentence1_binary_parse", "sentence2_binary_parse", "sentence1_parse", "sentence2_parse"]
MNLI = ["index", "promptID", "pairID", "genre", *PARSES, "sentence1", "sentence2"]
FIVE = [f"label{i}" for i in range(1, 6)]
STSB = ["index", "genre", "filename", "year", "old_index", "source1", "source2"]
INFERRED = ("neutral", "entailment", "contradiction")
ENTAILED = ("entailment", "not_entailment")

Row = Callable[[int], list[str]]
Layout = tuple[list[str], Row]


def one(number: int) -> str:
    return TEXTS[number % 4][0]


def two(number: int) -> list[str]:
    return list(TEXTS[number % 4])


def inferred(n_votes: int) -> Row:
    def row(i: int) -> list[str]:
        labels = [INFERRED[i % 3]] * n_votes
        return [str(i), "31", f"31{i}n", "fiction", *["( x )"] * 4, *two(i), *labels]

    return row


def counted(columns: list[str], labels: tuple[str, ...] = ()) -> Layout:
    """A layout of a number, two sentences and perhaps a label."""

    def row(i: int) -> list[str]:
        return [str(i), *two(i), *([labels[i % len(labels)]] if labels else [])]

    return ["index", *columns, *(["label"] if labels else [])], row


MRPC = ["#1 ID", "#2 ID", "#1 String", "#2 String"]
SENTENCES = ["sentence1", "sentence2"]
LAYOUTS: Mapping[str, Layout] = {
    "CoLA/train": ([], lambda i: ["gj04", str(i % 2), "" if i % 2 else "*", one(i)]),
    "CoLA/test": (["index", "sentence"], lambda i: [str(i), one(i)]),
    "SST-2/train": (["sentence", "label"], lambda i: [one(i), str(i % 2)]),
    "SST-2/test": (["index", "sentence"], lambda i: [str(i), one(i)]),
    "MRPC/train": (["\ufeffQuality", *MRPC], lambda i: [str(i % 2), f"70{i}", f"71{i}", *two(i)]),
    "MRPC/test": (["index", *MRPC], lambda i: [str(i), f"80{i}", f"81{i}", *two(i)]),
    "QQP/train": (
        ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"],
        lambda i: [f"1{i}", f"2{i}", f"3{i}", *two(i), str(i % 2)],
    ),
    "QQP/test": (["id", "question1", "question2"], lambda i: [str(i), *two(i)]),
    "STS-B/train": (
        [*STSB, *SENTENCES, "score"],
        lambda i: [
            str(i),
            "news",
            "MSRpar",
            "2012test",
            f"00{i}",
            "a",
            "b",
            *two(i),
            f"{i % 6}.25",
        ],
    ),
    "STS-B/test": (
        [*STSB, *SENTENCES],
        lambda i: [str(i), "news", "headlines", "2013", f"00{i}", "a", "b", *two(i)],
    ),
    "MNLI/train": ([*MNLI, "label1", "gold_label"], inferred(2)),
    "MNLI/dev": ([*MNLI, *FIVE, "gold_label"], inferred(6)),
    "MNLI/test": (MNLI, inferred(0)),
    "QNLI/train": counted(["question", "sentence"], ENTAILED),
    "QNLI/test": counted(["question", "sentence"]),
    "RTE/train": counted(SENTENCES, ENTAILED),
    "RTE/test": counted(SENTENCES),
    "WNLI/train": counted(SENTENCES, ("0", "1")),
    "WNLI/test": counted(SENTENCES),
    "diagnostic/test": counted(SENTENCES),
}
N_ROWS = {"train": 12, "dev": 6, "test": 5}
LABELS: Mapping[str, tuple[str, ...]] = {
    "cola": ("0", "1"), "sst2": ("0", "1"), "mrpc": ("0", "1"), "qqp": ("0", "1"),
    "stsb": ("0.25", "1.25", "2.25", "3.25", "4.25", "5.25"), "mnli": INFERRED, "ax": INFERRED,
    "qnli": ENTAILED, "rte": ENTAILED, "wnli": ("0", "1"),
}  # fmt: skip
SUBMISSIONS: Mapping[str, tuple[str, ...]] = {
    "cola": ("CoLA",), "sst2": ("SST-2",), "mrpc": ("MRPC",), "qqp": ("QQP",), "stsb": ("STS-B",),
    "mnli": ("MNLI-m", "MNLI-mm", "AX"), "ax": ("AX",), "qnli": ("QNLI",), "rte": ("RTE",),
    "wnli": ("WNLI",),
}  # fmt: skip


def write(file: Path, layout: str, n_rows: int) -> Path:
    """A file in an official layout."""
    header, row = LAYOUTS[layout]
    rows = [*([header] if header else []), *(row(i) for i in range(n_rows))]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return file


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """All the benchmark's folders, as its download script leaves them."""
    root = tmp_path / "glue_data"
    for task in TASKS.values():
        for split, n_rows in N_ROWS.items():
            layout = f"{task.folder}/{split}"
            layout = layout if layout in LAYOUTS else f"{task.folder}/train"
            ends = ("",) if split == "train" else task.sections
            for number, end in enumerate(ends):
                write(root / task.folder / f"{split}{end}.tsv", layout, n_rows + number)
    write(root / "diagnostic" / "diagnostic.tsv", "diagnostic/test", 7)
    return root


def parts(task: str, data: Path) -> dict[tuple[str, str], LabelledTexts]:
    found = Glue(GlueOptions(task, str(data))).read().parts
    return {(part.split, part.title): part for part in found}


@pytest.mark.parametrize("task", TASKS)
def test_the_contract(task: str, data: Path) -> None:
    check_task("glue", task=task, data=str(data))


def texts(task: str, n_rows: int) -> tuple[tuple[str, ...], ...]:
    n_columns = 1 if task in ("cola", "sst2") else 2
    return tuple(zip(*(TEXTS[i % 4][:n_columns] for i in range(n_rows)), strict=True))


@pytest.mark.parametrize("task", TASKS)
def test_the_official_files_are_read(task: str, data: Path) -> None:
    found = parts(task, data)
    train = found["train", "en"]
    assert train.texts == texts(task, 12)
    assert train.labels == (LABELS[task] * 12)[:12]
    assert list(train.lines) == list(range(1, 13) if task == "cola" else range(2, 14))
    tested = [part for (split, _), part in found.items() if split == "test"]
    assert [part.labels for part in tested] == [None] * len(SUBMISSIONS[task])
    if task not in ("mnli", "ax"):
        assert found.keys() == {("train", "en"), ("valid", "en"), ("test", "en")}
        valid, test = found["valid", "en"], found["test", "en"]
        assert (valid.texts, test.texts) == (texts(task, 6), texts(task, 5))
        assert valid.labels == (LABELS[task] * 6)[:6]


def n_rows(task: str, data: Path) -> dict[tuple[str, str], int]:
    return {key: part.n_rows for key, part in parts(task, data).items()}


def test_mnli_has_two_dev_and_test_sets_and_ax(data: Path) -> None:
    valid = {("valid", "matched"): 6, ("valid", "mismatched"): 7}
    tested = {("test", "matched"): 5, ("test", "mismatched"): 6}
    trained, diagnostic = {("train", "en"): 12}, {("test", "ax"): 7}
    assert n_rows("mnli", data) == trained | valid | tested | diagnostic
    assert n_rows("ax", data) == trained | valid | diagnostic
    file = data / "diagnostic" / "diagnostic.tsv"
    assert parts("ax", data)["test", "ax"].file == file
    file.rename(data / "AX.tsv")
    assert parts("ax", data)["test", "ax"].file == data / "AX.tsv"
    (data / "AX.tsv").unlink()
    assert n_rows("mnli", data) == trained | valid | tested


@pytest.mark.parametrize("task", ["mrpc", "mnli"])
def test_the_tasks_own_folder_may_be_named(task: str, data: Path) -> None:
    assert parts(task, data / TASKS[task].folder) == parts(task, data)


@pytest.mark.parametrize("task", TASKS)
def test_classes_are_numbered(task: str, data: Path) -> None:
    """The class that F1 measures, a paraphrase or a duplicate, is 1."""
    task_data = Glue(GlueOptions(task, str(data))).read()
    targets = task_data.targets[0]
    assert targets is not None
    classes = ("contradiction", "neutral", "entailment")
    order = classes if task in ("mnli", "ax") else LABELS[task]
    expected: list[float] = [order.index(label) for label in (LABELS[task] * 12)[:12]]
    if task == "stsb":
        expected = [float(label) for label in LABELS[task] * 2]
    assert targets.tolist() == expected
    assert task_data.classes == (() if task == "stsb" else order)


def test_broken_rows_of_qqp_are_left_out_and_counted(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A question with a line end in it makes two lines; the lines after it keep their numbers."""
    file = data / "QQP" / "train.tsv"
    lines = file.read_text().splitlines()
    lines[2] = lines[2].replace("She said nothing.", "She said\nnothing.")
    file.write_text("\n".join(lines) + "\n")
    train = parts("qqp", data)["train", "en"]
    assert list(train.lines) == [2, *range(5, 15)]
    assert train.texts == tuple(column[:1] + column[2:] for column in texts("qqp", 12))
    assert caplog.messages == [f"{file}: 2 lines are no whole rows, left out"]


def test_a_broken_row_of_a_test_set_is_refused(data: Path) -> None:
    file = data / "QQP" / "test.tsv"
    file.write_text(file.read_text() + "5\tonly one question\n")
    with pytest.raises(DataError, match=r"test\.tsv, line 7: 2 fields"):
        parts("qqp", data)


OFFICIAL: Mapping[str, Callable[[Any, Any], float]] = {
    "acc": metrics.accuracy_score,
    "f1": metrics.f1_score,
    "mcc": metrics.matthews_corrcoef,
    "pearson": lambda true, predicted: stats.pearsonr(true, predicted).statistic,
    "spearman": lambda true, predicted: stats.spearmanr(true, predicted).statistic,
}
JUDGED_BY = {
    "cola": ("mcc",), "mrpc": ("f1", "acc"), "qqp": ("f1", "acc"), "stsb": ("pearson", "spearman"),
}  # fmt: skip


@pytest.mark.parametrize("task", TASKS)
def test_metrics_are_scikit_learns_and_scipys(task: str) -> None:
    rng = np.random.default_rng(0)
    glue = Glue(GlueOptions(task))
    if task == "stsb":
        targets = rng.integers(0, 26, size=300).astype(np.float32) / 5
        predicted = (0.5 * targets + rng.normal(size=300)).astype(np.float32)
    else:
        targets = rng.integers(len(set(LABELS[task])), size=300)
        wrong = rng.integers(len(set(LABELS[task])), size=300)
        predicted = np.where(rng.random(300) < 0.5, targets, wrong)
    assert glue.metrics == JUDGED_BY.get(task, ("acc",))
    expected = {name: 100 * float(OFFICIAL[name](targets, predicted)) for name in glue.metrics}
    assert glue.measure(targets, predicted) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("task", TASKS)
def test_submissions_have_the_servers_format(task: str, data: Path, tmp_path: Path) -> None:
    glue = Glue(GlueOptions(task, str(data)))
    task_data = glue.read()
    predicted = [*task_data.classes, "0.12345", "-1.5", "7"][:3]
    if task == "stsb":
        expected = "0\t0.123\n1\t0.000\n2\t5.000\n"
    elif task in ("mnli", "ax"):
        expected = "0\tcontradiction\n1\tneutral\n2\tentailment\n"
    else:
        predicted = [*task_data.classes, task_data.classes[1]]
        first, second = ENTAILED if task in ("qnli", "rte") else ("0", "1")
        expected = f"0\t{first}\n1\t{second}\n2\t{second}\n"
    for part in task_data.of("test"):
        glue.write(part, predicted, tmp_path)
    written = {file.stem: file.read_bytes() for file in tmp_path.glob("*.tsv")}
    assert written == dict.fromkeys(SUBMISSIONS[task], f"index\tprediction\n{expected}".encode())


def refusal(task: str | None, data: Path | None) -> str:
    with pytest.raises((DataError, OptionError)) as refused:
        Glue(GlueOptions(task, data and str(data))).read()
    return str(refused.value)


def test_what_is_missing_is_named(data: Path, tmp_path: Path) -> None:
    assert "name of a task\nexpected: one of cola, sst2, mrpc" in refusal(None, data)
    assert "--glue.data FOLDER" in refusal("rte", None)
    assert f"there is no {tmp_path / 'RTE'}" in refusal("rte", tmp_path)
    (data / "MNLI" / "dev_mismatched.tsv").unlink()
    assert f"no file {data / 'MNLI' / 'dev_mismatched.tsv'}" in refusal("mnli", data)
    (data / "QQP" / "dev.tsv").unlink()
    assert f"no file {data / 'QQP' / 'dev.tsv'}" in refusal("qqp", data)


def test_ax_alone_needs_its_sentences(data: Path) -> None:
    (data / "diagnostic" / "diagnostic.tsv").unlink()
    told = refusal("ax", data)
    assert f"there is no {data / 'diagnostic' / 'diagnostic.tsv'}" in told
    assert "AX/AX.tsv" in told


def test_a_missing_column_is_named(data: Path) -> None:
    file = data / "RTE" / "dev.tsv"
    file.write_text(file.read_text().replace("sentence2", "hypothesis"))
    told = refusal("rte", data)
    assert f"{file} has no column 'sentence2'" in told
    assert "one of index, sentence1, hypothesis, label" in told


def test_an_unknown_label_is_reported_with_file_and_line(data: Path) -> None:
    file = data / "QNLI" / "dev.tsv"
    file.write_text(file.read_text().replace("\tnot_entailment", "\tcontradiction", 1))
    assert f"{file}, line 3: the label 'contradiction'" in refusal("qnli", data)
    file = data / "STS-B" / "train.tsv"
    file.write_text(file.read_text().replace("3.25", "high", 1))
    assert f"{file}, line 5: the label 'high' is not a number" in refusal("stsb", data)


def test_a_binary_file_is_refused(data: Path) -> None:
    (data / "QQP" / "train.tsv").write_bytes(b"id\tqid1\xff\n")
    assert "train.tsv, line 1: byte 8 of the line is 0xff" in refusal("qqp", data)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A very short run: MLM on shuffled words of the sentences."""
    folder = tmp_path_factory.mktemp("glue")
    (folder / "text").mkdir()
    rng = random.Random(0)
    words = " ".join(text for pair in TEXTS for text in pair).split()
    for split, n_lines in (("train", 300), ("valid", 20)):
        lines = [" ".join(rng.choices(words, k=6)) for _ in range(n_lines)]
        (folder / "text" / f"{split}.en.txt").write_text("\n".join(lines) + "\n")
    prepared = ["prepare", str(folder / "text"), str(folder / "data"), "--vocab-size=320"]
    assert main([*prepared, "--workers=1"]) == 0
    small = ("--dim=16", "--n-layers=1", "--n-heads=2", "--batch-tokens=256", "--window=16")
    short = ("--steps=2", "--save-every=2", "--threads=1")
    command = ["train", "--objective=mlm", *small, *short, f"--data={folder / 'data'}"]
    assert main([*command, f"--out={folder / 'run'}"]) == 0
    return folder / "run"


@pytest.mark.parametrize("task", TASKS)
def test_a_run_is_trained_and_evaluated_and_writes_predictions(
    task: str, run: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ["finetune", "glue", "--from", str(run), f"--out={out}", f"--glue.task={task}"]
    command += [f"--glue.data={data}", "--epochs=1", "--batch-sentences=4", "--threads=1"]
    assert main(command) == 0
    results = json.loads((out / "results.json").read_text())
    titles = ("matched", "mismatched") if task in ("mnli", "ax") else ("en",)
    for metric in JUDGED_BY.get(task, ("acc",)):
        each = [results[f"valid_{title}_{task}_{metric}"] for title in titles]
        assert results[f"valid_{task}_{metric}"] == pytest.approx(sum(each) / len(each))
    rows_of = {"MNLI-mm": 6, "AX": 7}
    for name in SUBMISSIONS[task]:
        header, *lines = (out / "predictions" / f"{name}.tsv").read_text().splitlines()
        assert header == "index\tprediction"
        assert [line.split("\t")[0] for line in lines] == list(
            map(str, range(rows_of.get(name, 5)))
        )
        if task == "stsb":
            assert all(0 <= float(line.split("\t")[1]) <= 5 for line in lines)
        else:
            assert {line.split("\t")[1] for line in lines} <= set(LABELS[task])
