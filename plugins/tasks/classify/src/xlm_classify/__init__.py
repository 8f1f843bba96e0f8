"""Any file of labelled texts as a downstream task: its options and its hook."""

from __future__ import annotations

from dataclasses import dataclass

from xlm_plugins import Component, OptionError, hookimpl, option

METRICS = {
    "classification": ("acc", "macro_f1", "mcc"),
    "regression": ("pearson", "spearman"),
}
"""What each kind of label is judged by, the usual one first."""


@dataclass(frozen=True)
class ClassifyOptions:
    """Files of labelled texts, and which of their columns are what."""

    train: tuple[str, ...] = option(
        (), "files to train on, as LANGUAGE=FILE, or FILE where its name ends as in x.en.tsv",
        comma=True, path=True,
    )  # fmt: skip
    valid: tuple[str, ...] = option((), "files to choose the model by", comma=True, path=True)
    test: tuple[str, ...] = option(
        (), "files to measure the chosen model on", comma=True, path=True
    )
    label: str = option("label", "the column of labels")
    text: tuple[str, ...] = option(
        (), "the column of texts, or the two that are compared; all but the label's if not given",
        comma=True,
    )  # fmt: skip
    columns: tuple[str, ...] = option(
        (), "names of the columns, where a file's first line is a row already", comma=True
    )
    kind: str = option("classification", "labels are classes, or numbers", choices=tuple(METRICS))
    metric: str | None = option(
        None, "what the model is chosen by; acc, or pearson for numbers, if not given",
        choices=[name for names in METRICS.values() for name in names],
    )  # fmt: skip

    def __post_init__(self) -> None:
        if len(self.text) > 2:
            raise OptionError(
                f"classify.text names {len(self.text)} columns", expected="one, or two to compare"
            )
        if self.metric not in (None, *METRICS[self.kind]):
            raise OptionError(
                f"classify.metric = {self.metric!r} does not measure a {self.kind}",
                expected=f"one of {', '.join(METRICS[self.kind])}",
                remedy="or another classify.kind",
            )


@hookimpl
def xlm_tasks() -> list[Component]:
    return [
        Component(
            "classify",
            "xlm_classify.task:Classify",
            ClassifyOptions,
            "classes or numbers of texts or pairs of texts, from any TSV, CSV or JSON-lines file",
        )
    ]
