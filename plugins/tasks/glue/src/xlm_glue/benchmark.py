"""The tasks of GLUE (Wang et al., 2019, arXiv 1804.07461): a row each, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

ENTAILMENT = ("entailment", "not_entailment")
INFERENCE = ("contradiction", "neutral", "entailment")


@dataclass(frozen=True)
class GlueTask:
    """What a task's files look like, and how it is judged.

    :param folder: of its files; submissions are called so as well.
    :param texts: columns.
    :param metrics: the official ones; the first chooses the model.
    :param label: column of the label, which test files lack.
    :param classes: as the files have them and submissions want them; none for a regression.
    :param header: columns of the train and dev files, where these do not name them.
    :param sections: the ends of the names of the dev and test files, ``dev_matched.tsv``.
    :param diagnostic: whether AX is predicted: not, beside the test sets, or alone.
    :param broken: some rows of train and dev files are broken in two, and are left out.
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
"""Where AX lies: as the benchmark's download script has it, then as its site has it."""

SUBMISSIONS = {"matched": "MNLI-m", "mismatched": "MNLI-mm", "ax": "AX"}
"""What the files of parts with a name of their own are called."""
