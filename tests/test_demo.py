"""The demonstration: what it runs, shows and measures."""

from __future__ import annotations

import io
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from xlm_plugins import PluginError, RunError
from xlm_plugins.core.plugins import Plugins, new_manager
from xlm_plugins.demo import MASKED, Demonstration, overlap_accuracy, retrieval_accuracy
from xlm_plugins.inference.fill_mask import MASK_MARK


def _demonstration(folder: Path, minutes: float = 0.2) -> tuple[Demonstration, io.StringIO]:
    shown = io.StringIO()
    return Demonstration(folder, minutes, Plugins.discover(), Console(file=shown, width=120)), shown


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="already exists"):
        _demonstration(tmp_path)[0].show()
    assert list(tmp_path.iterdir()) == []


def test_plugins_that_it_needs_are_told_at_once_and_nothing_is_written(tmp_path: Path) -> None:
    demonstration = replace(_demonstration(tmp_path / "demo")[0], plugins=Plugins(new_manager()))
    with pytest.raises(PluginError, match="pip install xlm-mlm xlm-tlm xlm-pkm xlm-sentencepiece"):
        demonstration.show()
    assert list(tmp_path.iterdir()) == []


def test_a_failing_command_ends_it_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda command: subprocess.CompletedProcess(command, 3))
    demonstration, shown = _demonstration(tmp_path / "demo")
    with pytest.raises(RunError, match=r"`xlm prepare embedded .*` exited with status 3"):
        demonstration.show()
    assert f"$ xlm prepare embedded {tmp_path / 'demo' / 'data'}" in shown.getvalue()


def test_there_are_three_texts_with_one_mask_in_each_language() -> None:
    assert set(MASKED) == {"en", "fr"}
    for texts in MASKED.values():
        assert [text.count(MASK_MARK) for text in texts] == [1, 1, 1]


@pytest.mark.slow
def test_everything_is_shown(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    demonstration, captured = _demonstration(tmp_path / "demo")
    demonstration.show()
    shown, commands_printed = captured.getvalue(), capfd.readouterr().out
    for command in ("prepare embedded", "train --objective mlm"):
        assert f"$ xlm {command}" in shown
    for language, texts in MASKED.items():
        assert f"--language {language} --top 3" in shown
        for text in texts:
            assert f"{text}\n" in commands_printed
    rows = {line.split("│")[1].strip(): line for line in shown.splitlines() if "│" in line}
    for row in ("mlm en", "mlm fr", "tlm en-fr", "tlm fr-en"):
        untrained, trained = re.findall(r"[\d,.]+", rows[row].replace("│", " "))[:2]
        assert float(trained.replace(",", "")) < float(untrained.replace(",", "")) / 2
    for row in ("fr to en", "en to fr"):
        chance, *others = map(float, re.findall(r"([\d.]+) %", rows[row]))
        assert chance == pytest.approx(100 / 265, abs=0.05)
        assert len(others) == 3
        assert others[1] > 10  # plain word overlap finds about a fifth
    curves = re.search(r"The curves: (\S+)", shown)[1]
    assert Path(curves).stat().st_size
    for command in re.findall(r"^  xlm ((?:evaluate|fill-mask) .*)$", shown, re.MULTILINE):
        assert str(tmp_path / "demo" / "run") in command


def test_retrieval_ignores_a_common_shift() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((50, 16)).astype(np.float32)
    shift = 100 * rng.standard_normal(16).astype(np.float32)  # what all texts of a language share
    assert retrieval_accuracy(vectors, 3 * vectors + shift) == 100.0


def test_retrieval_counts_only_the_translation_itself() -> None:
    vectors = np.eye(4, dtype=np.float32)
    assert retrieval_accuracy(vectors, vectors[[0, 1, 3, 2]]) == 50.0


def test_retrieval_of_unrelated_vectors_is_chance() -> None:
    rng = np.random.default_rng(1)
    sides = rng.standard_normal((2, 400, 32)).astype(np.float32)
    assert retrieval_accuracy(*sides) < 2.0


def test_overlap_counts_words_in_common() -> None:
    queries = ["Abraham dit à Isaac", "rien de commun"]
    candidates = ["Abraham said to Isaac", "nothing at all"]
    # The second query shares nothing with either, and ties go to the first candidate.
    assert overlap_accuracy(queries, candidates) == pytest.approx(50.0)
