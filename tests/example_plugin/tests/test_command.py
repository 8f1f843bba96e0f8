"""The command: it exists, and reports errors."""

from __future__ import annotations

import subprocess
import sys


def test_a_missing_run_is_reported() -> None:
    command = [sys.executable, "-m", "xlm_plugins", "example-parameters", "nowhere"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert "nowhere" in done.stderr
