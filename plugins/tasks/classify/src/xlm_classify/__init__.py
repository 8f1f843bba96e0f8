"""Any file of labelled texts as a downstream task: its options and its hook."""

from __future__ import annotations

from dataclasses import dataclass

from xlm_plugins import Component, OptionError, hookimpl, option

METRICS = {
    "classification": ("acc", "macro_f1", "mcc"),
    "regression": ("pearson", "spearman"),
}
"""The metrics of each kind of label, the default one first."""


@dataclass(frozen=True)
class ClassifyOptions:
    """Files of labelled texts, and the meaning of their columns."""

    train: tuple[str, ...] = option(
        (), "files to train on, as LANGUAGE=FILE, or FILE if its name ends as in x.en.tsv",
        comma=True, path=True,
    )  # fmt: skip
    valid: tuple[str, ...] = option((), "files to choose the model on", comma=True, path=True)
    test: tuple[str, ...] = option(
        (), "files to evaluate the chosen model on", comma=True, path=True
    )
    label: str = option("label", "the column of labels")
    text: tuple[str, ...] = option(
        (), "the column of texts, or the two that are compared; all but the label's by default",
        comma=True,
    )  # fmt: skip
    columns: tuple[str, ...] = option(
        (), "names of the columns, if a file's first line is not a header", comma=True
    )
    kind: str = option("classification", "labels are classes, or numbers", choices=tuple(METRICS))
    metric: str | None = option(
        None, "the metric that the model is chosen by; by default acc, or pearson for numbers",
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
            "classify texts or pairs, or predict numbers, from any TSV, CSV or JSON-lines file",
        )
    ]
