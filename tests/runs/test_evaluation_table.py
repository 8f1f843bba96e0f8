"""Evaluations as tables."""

from __future__ import annotations

import math

import pytest

from xlm_plugins.runs.evaluation_table import BestSoFar, evaluation_tables

SMALL = {
    "valid_en_mlm_ppl": 12.345,
    "valid_en_mlm_acc": 50.0,
    "valid_fr_mlm_ppl": 9.5,
    "valid_fr_mlm_acc": 7.25,
    "valid_mlm_ppl": 10.92,
    "valid_mlm_acc": 28.6,
}


def _translation() -> dict[str, float]:
    """What a run that translates measures: the widest of tables."""
    measures = ("ppl", "acc", "bleu", "chrf", "copies", "empty", "repeats", "other_language")
    found = {f"valid_{pair}_mt_{m}": 27.81 for pair in ("en-fr", "fr-en") for m in measures}
    return found | {"valid_mt_ppl": 1.0, "valid_mt_acc": 2.0, "valid_dec.1_pkm_usage": 99.5}


def _lines(metrics: dict[str, float], width: int, best: tuple[str, ...] = ()) -> list[str]:
    return [line.plain for line in evaluation_tables(metrics, width, best)]


def test_objectives_and_languages_go_down_and_the_best_is_marked() -> None:
    assert _lines(SMALL, 80, ("valid_fr_mlm_ppl",)) == [
        "objective  languages  perplexity  accuracy",
        "mlm        en             12.35       50.0",
        "mlm        fr              9.50*       7.2",
        "mlm        mean           10.92       28.6",
    ]


@pytest.mark.parametrize("width", [80, 100, 40, 10])
def test_no_number_is_broken_at_any_width(width: int) -> None:
    lines = _lines(_translation(), width)
    assert max(map(len, lines)) <= max(width, 39)
    text = "\n".join(lines)
    for title in ("perplexity", "BLEU", "chrF", "other language", "usage"):
        assert text.count(title) == 1
    assert text.count("27.8") == 16


def test_what_has_no_number_leaves_a_gap_and_is_not_in_a_table_without_any() -> None:
    lines = _lines(SMALL | _translation(), 80)
    assert "mlm        en              12.35      50.0" in lines
    second = lines[lines.index("") + 1 :]
    assert not any(line.startswith("mlm") for line in second)


def test_fifteen_languages_fit() -> None:
    metrics = {f"valid_l{i}_mlm_ppl": 1234.5 * i for i in range(15)}
    metrics |= {"valid_mlm_ppl": math.inf}
    lines = _lines(metrics, 40)
    assert len(lines) == 17
    assert lines[-1].endswith("inf")
    assert lines[-2].endswith("17,283")


def test_best_so_far_follows_what_the_run_has_recorded() -> None:
    assert BestSoFar().take(SMALL) == set()  # a first evaluation is compared with nothing
    lines = [
        {"kind": "train", "step": 1, "loss": 1.0},
        {"kind": "evaluation", "step": 1, "time": 0.0, "valid_mlm_ppl": "inf", "valid_mlm_acc": 9},
        {"kind": "evaluation", "step": 2, "time": 0.0, "valid_mlm_ppl": 5.0, "valid_mlm_acc": 8},
    ]
    best = BestSoFar(lines)
    assert best.take({"valid_mlm_ppl": 4.0, "valid_mlm_acc": 9.0}) == {"valid_mlm_ppl"}
    assert best.take({"valid_mlm_ppl": 4.0, "valid_mlm_acc": 9.5}) == {"valid_mlm_acc"}


def test_all_numbers_of_a_column_have_as_many_decimals() -> None:
    metrics = {
        "valid_en_mlm_ppl": 4043.8, "valid_fr_mlm_ppl": 3144.3, "valid_mlm_ppl": 3594.05,
        "valid_en_mlm_acc": 0.0, "valid_fr_mlm_acc": 0.405, "valid_mlm_acc": 0.2025,
        "valid_enc.0_pkm_kl": 0.0, "valid_enc.1_pkm_kl": 0.5524,
    }  # fmt: skip
    lines = [str(line) for line in evaluation_tables(metrics, 80)]
    assert [line.split()[-1] for line in lines[1:4]] == ["0.0", "0.4", "0.2"]
    assert [line.split()[-1] for line in lines[-2:]] == ["0.000", "0.552"]
