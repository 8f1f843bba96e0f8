"""``xlm generate``: prompts in, whole lines out, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

import xlm_plugins
from xlm_plugins.config.model import GenerationOptions

Piped = Callable[..., tuple[int, bytes, str]]
TEXT = "In the beginning\n\nÀ Dieu\nGod said\n"
TEXTS = TEXT.split("\n")[:-1]
SHORT = ("--language=fr", "--max-length=8")


def lines_of(out: bytes) -> list[str]:
    return out.decode().split("\n")[:-1]


def test_every_prompt_gives_a_line_in_order(
    clm_run: Path, piped: Piped, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xlm_plugins.cli.pipes.LINES_AT_ONCE", 3)
    status, out, err = piped("generate", clm_run, *SHORT, content=TEXT)
    assert (status, err) == (0, "")
    lines = lines_of(out)
    assert lines == xlm_plugins.load(clm_run).generate(TEXTS, "fr", max_tokens=8)
    assert all(line.startswith(text) for line, text in zip(lines, TEXTS, strict=True))
    given = piped("generate", clm_run, *SHORT, *TEXTS)
    assert lines_of(given[1]) == lines


def test_the_best_of_a_beam_with_scores(clm_run: Path, piped: Piped) -> None:
    flags = ("--number=2", "--beam=3", "--scores", "--length-penalty=0.5")
    _, out, _ = piped("generate", clm_run, *SHORT, *flags, content=TEXT)
    found = xlm_plugins.load(clm_run).continuations(
        TEXTS, "fr", GenerationOptions(beam=3, length_penalty=0.5), number=2, max_tokens=8
    )
    assert lines_of(out) == [f"{c.score:.4f}\t{c.text}" for two in found for c in two]


def test_samples_follow_the_seed(clm_run: Path, piped: Piped) -> None:
    flags = (*SHORT, "--sample", "--number=3")
    found = [piped("generate", clm_run, *flags, f"--seed={n}", "God")[1] for n in (1, 1, 2)]
    assert found[0] == found[1] != found[2]
    assert len({*lines_of(found[0])}) == 3


def test_long_prompts_are_cut_and_counted_or_refused(clm_run: Path, piped: Piped) -> None:
    long = "God " * 600
    status, out, err = piped("generate", clm_run, *SHORT, content=f"God\n{long}\n")
    assert (status, out.count(b"\n")) == (0, 2)
    assert lines_of(out)[1].startswith(long.rstrip())
    assert err.startswith("1 of 2 lines were cut to 503 tokens")
    status, out, err = piped("generate", clm_run, *SHORT, "--strict", content=f"God\n{long}\n")
    assert (status, out) == (2, b"")
    assert "standard input, line 2: " in err
    assert "error: prompt 1: " in piped("generate", clm_run, *SHORT, "--strict", long)[2]


def test_progress_shows_on_a_terminal(
    clm_run: Path, piped: Piped, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Console, "is_terminal", True)
    assert "4 lines continued" in piped("generate", clm_run, *SHORT, content=TEXT)[2]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--language=xx"], "--language with one of en, fr"),
        ([], "--language with one of en, fr"),
        (["--language=en", "--number=2"], "--sample, or --beam 2"),
        (["--language=en", "--max-length=512"], "at most 511"),
        (["--language=en", "--beam=2", "--sample"], "sample and beam = 2 are mutually exclusive"),
        (["--language=en", "--max-length=0"], "--max-length"),
    ],
)
def test_what_is_refused(clm_run: Path, piped: Piped, arguments: list[str], told: str) -> None:
    status, out, err = piped("generate", clm_run, *arguments, content=TEXT)
    assert (status, out) == (2, b"")
    assert told in err
    assert "Traceback" not in err


def test_a_model_that_cannot_generate(tiny_run: Path, piped: Piped) -> None:
    status, out, err = piped("generate", tiny_run, "--language=en", "God")
    assert (status, out) == (2, b"")
    assert "the model does not generate text: it was trained on mlm, tlm" in err
    assert "--objective clm" in err
