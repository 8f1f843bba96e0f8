"""A process that is killed during a save, at any file operation, loses nothing."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xlm_plugins.runs.find import find_bundle
from xlm_plugins.runs.whole_folders import latest_good
from xlm_plugins.training.engines.training_state import load_training_state

SAVER = Path(__file__).with_name("saver.py")
FAULT = "SIGKILL during a save"
KILLED = -9

Start = Callable[..., list[int]]


@pytest.fixture
def run(start: Start, tmp_path: Path) -> Path:
    """A run that has saved numbers 1 and 2."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.toml").touch()
    for number in (1, 2):
        assert start([folder, number, 10], tmp_path / "log", script=SAVER) == [0]
    return folder


def held(run: Path, number: int) -> tuple[int, int]:
    """The contents of the last intact checkpoint and of the best bundle: one number each.

    :param number: of the last save that was begun.
    """
    checkpoint, rejected = latest_good(run / "checkpoints")
    assert [path.name for path, _ in rejected] in ([], [f"step-{number}"])
    saved, best = _number(checkpoint), _number(find_bundle(str(run)))
    assert checkpoint.name == f"step-{saved}"
    return saved, best


def _number(folder: Path) -> int:
    state = load_training_state(folder)
    assert {*state.weights["a"].tolist(), *state.moments["exp_avg"]["a"].tolist()} == {
        state.n_updates
    }
    assert json.loads((folder / "model.json").read_text()) == state.n_updates
    return state.n_updates


class Saves:
    """Saves one number after the other; each finds what the previous kill left."""

    def __init__(self, start: Start, run: Path, faults: Any) -> None:
        self.start, self.run, self.faults = start, run, faults
        self.number = 2
        self.held = (2, 2)
        self.n_killed = 0
        self.took = 0.0  # seconds of the last save that was not killed

    def save(self, n_values: int, *kill_at: int, seconds: float = 60) -> bool:
        """Whether a save was killed; either way everything is as before it or as after it."""
        self.number += 1
        log, before = self.run.with_name("log"), self.held
        arguments = [self.run, self.number, n_values, *kill_at]
        began = time.monotonic()
        (status,) = self.start(arguments, log, script=SAVER, seconds=seconds)
        took = time.monotonic() - began
        assert status in (0, KILLED), log.read_text()
        killed = status == KILLED
        if killed:
            self.faults.inject(FAULT)
        self.held = held(self.run, self.number)
        for now, earlier in zip(self.held, before, strict=True):
            assert now in ((earlier, self.number) if killed else (self.number,))
        if killed:
            self.faults.survive(FAULT)
            self.n_killed += 1
        else:
            self.took = took
        return killed


@pytest.mark.parametrize("stride", [pytest.param(1, marks=pytest.mark.faults), 23])
def test_killed_at_any_file_operation(start: Start, run: Path, faults: Any, stride: int) -> None:
    """The kill comes a bit later each time, until a save completes."""
    saves = Saves(start, run, faults)
    while saves.save(10, stride * (saves.n_killed + 1)):
        pass
    assert stride * saves.n_killed > 80  # or it was no save
    assert not list(run.glob("*/.*"))
    assert len(list(run.glob("checkpoints/*"))) == 2


@pytest.mark.faults
def test_killed_from_outside_in_the_middle_of_big_files(
    start: Start, run: Path, faults: Any
) -> None:
    """Between calls; the moments are spread over the time that a save takes."""
    saves, rng, n_values = Saves(start, run, faults), random.Random(6), 2_000_000
    saves.save(n_values)
    for _ in range(20):
        saves.save(n_values, seconds=rng.uniform(0, 1) * saves.took)
    assert saves.n_killed >= 5
