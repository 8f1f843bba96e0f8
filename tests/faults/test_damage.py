"""Whichever file of a checkpoint is damaged, the next start says so and uses the one before."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xlm_plugins.testing.runs import metrics_of


def flip(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])  # a line's end alone would not be missed


DAMAGES = {
    "a bit flipped in a checkpoint's file": flip,
    "a checkpoint's file cut short": cut,
    "a checkpoint's file missing": Path.unlink,
}


@pytest.mark.faults
@pytest.mark.parametrize("fault", DAMAGES)
def test_a_damaged_checkpoint_is_skipped(
    start: Callable[..., list[int]], tiny_run: Path, tmp_path: Path, faults: Any, fault: str
) -> None:
    newest = tiny_run / "checkpoints" / "step-12"
    names = sorted(p.relative_to(newest) for p in newest.rglob("*") if p.is_file())
    assert len(names) >= 9
    for name in names:
        run = tmp_path / name.name
        shutil.copytree(tiny_run, run)
        faults.inject(fault)
        DAMAGES[fault](run / "checkpoints" / "step-12" / name)
        log = run.with_suffix(".log")
        assert start(["train", f"--resume={run}"], log) == [0], log.read_text()
        told = log.read_text()
        assert "skipping the damaged checkpoint step-12" in told
        assert name.name in told
        assert "after 11 steps" in told
        assert metrics_of(run) == metrics_of(tiny_run)
        faults.survive(fault)
        shutil.rmtree(run)


@pytest.mark.faults
def test_if_every_checkpoint_is_damaged_the_run_does_not_start_over(
    start: Callable[..., list[int]], tiny_run: Path, tmp_path: Path, faults: Any
) -> None:
    run, log, fault = tmp_path / "run", tmp_path / "log", "every checkpoint damaged"
    shutil.copytree(tiny_run, run)
    for weights in run.glob("checkpoints/*/model.safetensors"):
        flip(weights)
    faults.inject(fault)
    before = (run / "metrics.jsonl").read_bytes()
    assert start(["train", f"--resume={run}"], log) == [2]
    told = log.read_text()
    assert "no checkpoint is intact" in told
    assert f"delete {run / 'checkpoints'}" in told
    assert "Traceback" not in told
    assert (run / "metrics.jsonl").read_bytes() == before
    faults.survive(fault, "the checkpoints; the metrics and the best models stay")
