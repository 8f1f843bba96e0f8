"""Which model is the best, and when to stop."""

from __future__ import annotations

import pytest

from xlm_plugins import OptionError
from xlm_plugins.config.training import RunOptions
from xlm_plugins.training.best_models import Validation


def test_lower_is_better_with_a_leading_underscore() -> None:
    validation = Validation(["_valid_ppl", "valid_acc"])
    assert validation.take({"valid_ppl": 10.0, "valid_acc": 1.0}) == ["valid_ppl", "valid_acc"]
    assert validation.take({"valid_ppl": 9.0, "valid_acc": 0.5}) == ["valid_ppl"]
    assert validation.take({"valid_ppl": 9.0, "valid_acc": 0.9}) == []
    assert validation.best == {"_valid_ppl": 9.0, "valid_acc": 1.0}


def test_stops_after_n_evaluations_without_improvement() -> None:
    validation = Validation([], "_ppl,2")
    for value, exhausted in ((5.0, False), (6.0, False), (4.0, False), (4.5, False), (4.0, True)):
        validation.take({"ppl": value})
        assert validation.exhausted is exhausted


def test_it_continues_from_what_was_saved() -> None:
    first = Validation(["_ppl"], "_ppl,2")
    first.take({"ppl": 3.0})
    first.take({"ppl": 4.0})
    second = Validation(["_ppl"], "_ppl,2")
    second.restore(first.to_json())
    assert second.take({"ppl": 3.5}) == []
    assert second.exhausted


def test_metrics_must_be_among_those_measured() -> None:
    patterns = ["valid_mlm_ppl", "valid_enc.2_pkm_*"]
    metrics = ("_valid_mlm_ppl", "valid_enc.2_pkm_usage")
    options = RunOptions(validation_metrics=metrics, stopping_criterion="_valid_mlm_ppl,2")
    assert Validation.of(options, ("_valid_tlm_ppl",), patterns).metrics == metrics
    with pytest.raises(OptionError, match="valid_tlm_ppl"):
        Validation.of(RunOptions(stopping_criterion="_valid_tlm_ppl,2"), (), patterns)
    with pytest.raises(OptionError, match="the data has none"):
        Validation.of(RunOptions(), ("_valid_tlm_ppl",), [])


def test_an_unknown_metric_lists_the_known_ones() -> None:
    with pytest.raises(OptionError, match="valid_mlm_ppl"):
        Validation(["_valid_mml_ppl"]).take({"valid_mlm_ppl": 1.0})


@pytest.mark.parametrize("text", ["ppl", "ppl,0", "ppl,x", ",3x", ",3"])
def test_an_invalid_criterion_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="METRIC,N"):
        Validation([], text)
