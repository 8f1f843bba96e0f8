"""The tasks of GLUE (Wang et al., 2019, arXiv 1804.07461) as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

ENTAILMENT = ("entailment", "not_entailment")
INFERENCE = ("contradiction", "neutral", "entailment")


@dataclass(frozen=True)
class GlueTask:
    """The format of a task's files, and its metrics.

    :param folder: of its files; also the name of its submission.
    :param texts: the columns of texts.
    :param metrics: the official ones; the model is chosen by the first.
    :param label: the column of labels, which test files lack.
    :param classes: as spelled in the files and in submissions; none for a regression.
    :param header: the columns of the train and dev files, if these have no header.
    :param sections: suffixes of the names of dev and test files, such as ``dev_matched.tsv``.
    :param diagnostic: whether AX is predicted: no, too (beside the test sets), or only AX.
    :param broken: some rows of the train and dev files are split over two lines; they are left out.
    """

    folder: str
    texts: tuple[str, ...]
    metrics: tuple[str, ...] = ("acc",)
    label: str = "label"
    classes: tuple[str, ...] = ("0", "1")
    header: tuple[str, ...] = ()
    sections: tuple[str, ...] = ("",)
    diagnostic: Literal["no", "too", "only"] = "no"
    broken: bool = False


def _mnli(diagnostic: Literal["too", "only"]) -> GlueTask:
    return GlueTask(
        "MNLI", ("sentence1", "sentence2"), label="gold_label", classes=INFERENCE,
        sections=("_matched", "_mismatched"), diagnostic=diagnostic,
    )  # fmt: skip


TASKS: Mapping[str, GlueTask] = {
    "cola": GlueTask(
        "CoLA", ("sentence",), ("mcc",), header=("source", "label", "mark", "sentence")
    ),
    "sst2": GlueTask("SST-2", ("sentence",)),
    "mrpc": GlueTask("MRPC", ("#1 String", "#2 String"), ("f1", "acc"), label="Quality"),
    "qqp": GlueTask(
        "QQP", ("question1", "question2"), ("f1", "acc"), label="is_duplicate", broken=True
    ),
    "stsb": GlueTask(
        "STS-B", ("sentence1", "sentence2"), ("pearson", "spearman"), label="score", classes=()
    ),
    "mnli": _mnli("too"),
    "ax": _mnli("only"),
    "qnli": GlueTask("QNLI", ("question", "sentence"), classes=ENTAILMENT),
    "rte": GlueTask("RTE", ("sentence1", "sentence2"), classes=ENTAILMENT),
    "wnli": GlueTask("WNLI", ("sentence1", "sentence2")),
}

DIAGNOSTIC_FILES = (
    "diagnostic/diagnostic.tsv", "diagnostic.tsv", "AX/AX.tsv", "AX/diagnostic.tsv", "AX.tsv",
)  # fmt: skip
"""Places of AX's file: first that of the benchmark's download script, then those of its site."""

SUBMISSIONS = {"matched": "MNLI-m", "mismatched": "MNLI-mm", "ax": "AX"}
"""Names of the submissions of parts that have their own."""
