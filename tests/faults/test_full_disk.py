"""A full disk ends a run with an error, and costs the updates since the last checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xlm_plugins.testing.runs import metrics_of

SCRIPT = Path(__file__).with_name("full_disk.py")
NOT_HERE = 77

# A checkpoint of the tiny run is about 500 kB: these end in the metrics, in the first file of a
# checkpoint, and in its tensors.
ROOMS = [("tmpfs", 0), ("tmpfs", 40_000), ("tmpfs", 350_000), ("limit", 120_000)]


@pytest.fixture
def options(tiny_run: Path) -> list[str]:
    return [f"--config={tiny_run / 'config.toml'}", "--save-every=3"]


@pytest.mark.parametrize(
    ("how", "room"), [pytest.param(*room, marks=pytest.mark.faults) for room in ROOMS]
)
def test_a_full_disk(
    start: Callable[..., list[int]],
    options: list[str],
    tiny_run: Path,
    tmp_path: Path,
    faults: Any,
    how: str,
    room: int,
) -> None:
    fault = "a disk full during a save" if room else "a disk full to the last byte"
    folder, out, log = tmp_path / "disk", tmp_path / "metrics.jsonl", tmp_path / "log"
    folder.mkdir()
    (status,) = start([how, room, folder, out, *options], log, script=SCRIPT)
    if status == NOT_HERE:
        pytest.skip("this machine mounts no file system for a test")
    told = log.read_text()
    faults.inject(fault)
    assert status == 0, told
    assert told.count("cannot be written: ") == 1
    assert ("No space left on device" if how == "tmpfs" else "File too large") in told
    assert "--resume" in told
    assert "Traceback" not in told
    assert "after 6 steps" in told
    assert metrics_of(tmp_path) == metrics_of(tiny_run)
    faults.survive(fault, lost="the updates since the last checkpoint, trained again")
