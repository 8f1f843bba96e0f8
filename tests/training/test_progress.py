"""What users see on the terminal."""

from __future__ import annotations

import io

from rich.console import Console

from xlm_plugins.training.progress import Report

RECORD = {"objective": "tlm", "languages": "en-fr", "loss": 2.5, "accuracy": 31.25}
COMMON = {"learning_rate": 1e-3, "tokens_per_second": 12345.0}


def _report(*, terminal: bool) -> tuple[Report, io.StringIO]:
    written = io.StringIO()
    console = Console(file=written, force_terminal=terminal, width=100)
    return Report(console), written


def test_plain_lines_without_a_terminal() -> None:
    report, written = _report(terminal=False)
    with report.shown():
        report.training([RECORD], COMMON, "step 50/100", share=0.5, seconds_left=75.0)
    (line,) = written.getvalue().splitlines()
    for part in ("step 50/100", "12,345 tokens/s", "lr 1.00e-03", "1:15 left", "tlm:en-fr 2.500"):
        assert part in line
    assert "\x1b" not in line


def test_plain_lines_are_rate_limited_except_the_last_one() -> None:
    report, written = _report(terminal=False)
    for update in range(1, 101):
        report.training([RECORD], COMMON, f"step {update}/100", update / 100, seconds_left=0.0)
    assert [line.split()[1] for line in written.getvalue().splitlines()] == ["1/100", "100/100"]


def test_a_live_table_on_a_terminal() -> None:
    report, written = _report(terminal=True)
    with report.shown():
        report.training([RECORD], COMMON, "step 50/100", share=0.5, seconds_left=75.0)
    shown = written.getvalue()
    assert "en-fr" in shown
    assert "31.2 %" in shown
    assert "50%" in shown


def test_an_evaluation_shows_perplexities() -> None:
    report, written = _report(terminal=False)
    report.evaluation(5, {"valid_en_mlm_ppl": 12.34, "valid_en_mlm_acc": 50.0})
    assert "valid_en_mlm 12.3" in written.getvalue()
    assert "50" not in written.getvalue().replace("step 5", "")


def test_an_evaluation_shows_bleu_if_there_is_any() -> None:
    report, written = _report(terminal=False)
    metrics = {"valid_fr-en_mt_ppl": 12.34, "valid_fr-en_mt_bleu": 27.81, "valid_fr-en_mt_chrf": 5}
    report.evaluation(1000, metrics)
    assert written.getvalue() == (
        "evaluation at step 1,000: perplexity valid_fr-en_mt 12.3; BLEU valid_fr-en_mt 27.8\n"
    )
