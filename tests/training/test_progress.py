"""What a person sees."""

from __future__ import annotations

import io

from rich.console import Console

from xlm_plugins.training.progress import Report, parts_of

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


def test_plain_lines_do_not_flood_but_the_last_one_comes() -> None:
    report, written = _report(terminal=False)
    for update in range(1, 101):
        report.training([RECORD], COMMON, f"step {update}/100", update / 100, seconds_left=0.0)
    assert [line.split()[1] for line in written.getvalue().splitlines()] == ["1/100", "100/100"]


def test_losses_that_a_line_cannot_hold_are_means() -> None:
    report, written = _report(terminal=False)
    records = [RECORD | {"languages": f"en-{i}", "loss": float(i)} for i in range(10, 21)]
    report.training([*records, RECORD | {"objective": "mlm"}], COMMON, "step 1/1", 1.0, 0.0)
    (line,) = written.getvalue().splitlines()
    assert line.endswith("  mean loss mlm 2.500  tlm 15.000")
    report, written = _report(terminal=False)
    objectives = [RECORD | {"objective": f"objective-{i}"} for i in range(9)]
    report.training(objectives, COMMON, "step 1/1", 1.0, 0.0)
    lines = written.getvalue().splitlines()
    assert [line[:2] for line in lines] == ["st", "  ", "  "]
    assert max(map(len, lines)) <= 100
    assert "".join(lines).count(" 2.500") == 9
    assert all(line.endswith("2.500") for line in lines)


def test_a_live_table_on_a_terminal() -> None:
    report, written = _report(terminal=True)
    with report.shown():
        report.training([RECORD], COMMON, "step 50/100", share=0.5, seconds_left=75.0)
    shown = written.getvalue()
    assert "en-fr" in shown
    assert "31.2 %" in shown
    assert "50%" in shown


def test_minutes_are_what_is_counted_where_they_end_the_run() -> None:
    report, written = _report(terminal=False)
    report.training([RECORD], COMMON, "step 50  minute 7.5/20", share=0.375, seconds_left=750.0)
    assert written.getvalue().startswith("step 50  minute 7.5/20  12,345 tokens/s")


def test_an_evaluation_is_a_table() -> None:
    report, written = _report(terminal=False)
    metrics = {"valid_fr-en_mt_ppl": 12.34, "valid_fr-en_mt_bleu": 27.81}
    report.evaluation(1000, metrics, {"valid_fr-en_mt_bleu"})
    assert written.getvalue().splitlines() == [
        "evaluation at step 1,000 (* best so far)",
        "objective  languages  perplexity   BLEU",
        "mt         fr-en           12.34  27.8*",
    ]


def test_how_far_an_evaluation_is_shows_on_a_terminal_only() -> None:
    for terminal in (False, True):
        report, written = _report(terminal=terminal)
        with report.shown():
            report.evaluating("mlm:en", 0.5)
        assert ("evaluating mlm:en" in written.getvalue()) == terminal


def test_after_an_evaluation_the_bar_is_that_of_training_again() -> None:
    report, written = _report(terminal=True)
    with report.shown():
        report.training([RECORD], COMMON, "step 50/100", share=0.5, seconds_left=75.0)
        report.evaluating("mlm:en", 1.0)
        report.evaluation(50, {"valid_mlm_ppl": 2.0})
    shown = written.getvalue()
    assert shown.rindex("step 50/100") > shown.rindex("mlm   ")
    assert "evaluating" not in shown[shown.rindex("step 50/100") :]


def test_parts_fill_a_whole() -> None:
    told: list[tuple[str, float]] = []
    first, second = parts_of(lambda *now: told.append(now), 2)
    first("a", 0.5)
    second("b", 0.5)
    assert told == [("a", 0.25), ("b", 0.75)]
