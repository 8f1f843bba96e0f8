"""Loader processes end with the trainer, whatever they are doing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os, signal, time
from xlm_plugins.data.batches.loader import load_batches

class Stuck:
    def __getitem__(self, index):
        if index > 1:
            time.sleep(600)  # a server that does not answer
        return [index]

if __name__ == "__main__":
    for found in load_batches(Stuck(), 0, 10, workers=2):
        if found.batches == [1]:
            {leave}
    print("left")
"""


@pytest.mark.parametrize(
    ("leave", "status", "reported"),
    [("break", 0, "left\n"), ("os.kill(os.getpid(), signal.SIGKILL)", -9, "")],
)
def test_the_trainer_waits_for_no_loader_process(
    tmp_path: Path, leave: str, status: int, reported: str
) -> None:
    """Standard output is closed when the last process that has it open ends."""
    script = tmp_path / "trainer.py"
    script.write_text(SCRIPT.format(leave=leave))
    command = [sys.executable, "-W", "error", script]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=240)
    assert (done.returncode, done.stdout) == (status, reported)
