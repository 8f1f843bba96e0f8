"""Remarks on classifiers that are no better than always predicting one class."""

from __future__ import annotations

import numpy as np
import pytest

from xlm_plugins import Component
from xlm_plugins.config.finetune_settings import FinetuneSettings
from xlm_plugins.config.training import FinetuneOptimizerOptions, FinetuneOptions
from xlm_plugins.training.finetuning.diagnosis import Finding, Majority, remarks

CLASSES = ("no", "yes")
TARGETS = np.arange(1000) % 2
SETTINGS = FinetuneSettings(
    "toy", Component("toy", "toy:Toy"), FinetuneOptions(), FinetuneOptimizerOptions(), None
)


def told(*parts: tuple[str, float, bool]) -> str:
    """The remarks on parts: title, share of correct rows, whether it is trained on."""
    findings = []
    for title, share, trained in parts:
        wrong = np.arange(1000) >= 1000 * share
        findings.append(Finding(title, Majority.of(TARGETS, TARGETS ^ wrong, CLASSES), trained))
    return "\n".join(remarks(findings, SETTINGS))


def test_classifiers_better_than_one_class_get_no_remark() -> None:
    assert told(("en", 0.9, True), ("fr", 0.6, False)) == ""


@pytest.mark.parametrize(("share", "is_told"), [(0.53, True), (0.55, False)])
def test_two_standard_errors_decide(share: float, is_told: bool) -> None:
    assert bool(told(("en", share, True))) == is_told


def test_a_language_may_not_be_related_where_another_was_learnt() -> None:
    found = told(("en", 0.9, True), ("fr", 0.5, False))
    assert found.startswith("fr: 50.0 % correct")
    assert "does not relate this language" in found
    assert "too high" not in found


def test_nothing_transfers_where_nothing_was_learnt() -> None:
    found = told(("en", 0.5, True), ("fr", 0.5, False))
    assert "does not relate this language" not in found
    assert found.count("the learning rate is too high") == 1


def test_predicting_one_class_throughout_is_a_collapse_in_any_language() -> None:
    learnt = Finding("en", Majority.of(TARGETS, TARGETS, CLASSES), trained=True)
    collapsed = Finding("fr", Majority.of(TARGETS, np.zeros_like(TARGETS), CLASSES), trained=False)
    lines = remarks([learnt, collapsed], SETTINGS)
    assert "100 % of the predictions are one class" in lines[0]
    assert any("the learning rate is too high" in line for line in lines)
