"""Loader processes end with the trainer, whatever they are at."""

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
    ("leave", "status", "told"),
    [("break", 0, "left\n"), ("os.kill(os.getpid(), signal.SIGKILL)", -9, "")],
)
def test_nobody_waits_for_what_a_loader_process_is_at(
    tmp_path: Path, leave: str, status: int, told: str
) -> None:
    """Standard output ends when the last process that holds it does."""
    script = tmp_path / "trainer.py"
    script.write_text(SCRIPT.format(leave=leave))
    command = [sys.executable, "-W", "error", script]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=240)
    assert (done.returncode, done.stdout) == (status, told)
