"""What the names of metrics say: ``valid_en-fr_tlm_ppl`` (docs/semantics.md, 7.1).

Language codes, and names of objectives and tasks, may hold underscores, so that one name alone is
ambiguous.  All names of an evaluation together are not: each objective and task has a mean over
its languages, ``valid_tlm_ppl``, in which the name that others end with stands alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

TITLES = {
    "ppl": "perplexity",
    "acc": "accuracy",
    "bleu": "BLEU",
    "chrf": "chrF",
    "f1": "F1",
    "mcc": "MCC",
}
"""Measures as people call them; others are called by their names."""

LOWER_IS_BETTER = ("ppl", "copies", "empty", "repeats", "other_language")

_OF_TEXT = ("ppl", "acc", "bleu", "chrf", "copies", "empty", "repeats", "other_language")
_OF_LAYER = re.compile(r"((?:enc|dec)\.\d+\+?)_([^_]+)_(.+)")


@dataclass(frozen=True)
class MetricName:
    """The parts of a metric's name.

    :param subject: what is measured: an objective, a task or a layer.
    :param variant: how, if there are several ways: ``alone``.
    :param where: languages, or a layer's place; empty for the mean over languages.
    :param measure: ``ppl``.
    """

    subject: str
    variant: str
    where: str
    measure: str
    of_layer: bool = False

    @property
    def title(self) -> str:
        """The measure in words."""
        return TITLES.get(self.measure, self.measure.replace("_", " "))

    @property
    def label(self) -> str:
        """Subject and variant: ``tlm alone``."""
        return f"{self.subject} {self.variant}".rstrip()


def parse_names(names: Iterable[str]) -> dict[str, MetricName]:
    """The parts of each name of one evaluation; the split, which begins it, is left out."""
    rests = {name: name.partition("_")[2] for name in names}
    of_text = {rest for rest in rests.values() if not _OF_LAYER.fullmatch(rest)}
    # What has no perplexity is a task, whose measures may have any name.
    measures = _OF_TEXT if any(rest.endswith("_ppl") for rest in of_text) else ()
    endings = {rest[i + 1 :] for rest in of_text for i, letter in enumerate(rest) if letter == "_"}
    means = of_text & endings
    subjects = sorted({_split(rest, measures)[0] for rest in means}, key=len, reverse=True)
    return {name: _parse(rest, subjects, measures) for name, rest in rests.items()}


def _parse(rest: str, subjects: Iterable[str], measures: tuple[str, ...]) -> MetricName:
    if match := _OF_LAYER.fullmatch(rest):
        place, layer, measure = match.groups()
        return MetricName(layer, "", place, measure, of_layer=True)
    for subject in subjects:
        where, found, ending = f"_{rest}".rpartition(f"_{subject}_")
        if found:
            variant, measure = _split(f"_{ending}", measures) if measures else ("", ending)
            return MetricName(subject, variant.strip("_"), where[1:], measure)
    label, measure = _split(rest, _OF_TEXT)
    where, _, subject = label.rpartition("_")
    return MetricName(subject, "", where, measure)


def _split(rest: str, measures: tuple[str, ...]) -> tuple[str, str]:
    """What stands before a measure, and the measure: a known one, or all behind the first word."""
    for measure in measures:
        if rest.endswith(f"_{measure}"):
            return rest.removesuffix(f"_{measure}"), measure
    label, _, measure = rest.partition("_")
    return label, measure
