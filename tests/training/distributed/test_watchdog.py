"""The watchdog ends what hangs, whatever the main thread is doing, and nothing else."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from xlm_plugins.training.distributed.process_group import World
from xlm_plugins.training.distributed.watchdog import Watchdog

MINUTES = 0.2 / 60
HUNG = """
import ctypes, sys
from xlm_plugins.training.distributed.process_group import World
from xlm_plugins.training.distributed.watchdog import Watchdog

def waiting_for_a_rank_that_is_gone():
    ctypes.CDLL(None).sleep(300)

with Watchdog(World(1, 1, 2), 0.3 / 60) as watch:
    watch.report("update 12 (mlm:en)")
    waiting_for_a_rank_that_is_gone()
"""


class Ends:
    """Stands in for the end of the process."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.came = threading.Event()

    def __call__(self, status: int) -> None:
        self.status = status
        self.came.set()


def test_a_process_that_hangs_in_c_ends_resumably_and_says_where() -> None:
    done = subprocess.run([sys.executable, "-c", HUNG], capture_output=True, text=True, timeout=120)
    assert done.returncode == 75, done.stderr
    assert "rank 1 of 2: no progress for 0.005 minutes" in done.stderr
    assert "current activity: update 12 (mlm:en)" in done.stderr
    assert "in waiting_for_a_rank_that_is_gone" in done.stderr


def test_it_ends_with_the_resumable_status(capfd: pytest.CaptureFixture[str]) -> None:
    ends = Ends()
    with Watchdog(World(), MINUTES, ends):
        assert ends.came.wait(60)
    assert ends.status == 75
    assert "current activity: starting" in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["report", "forward"])
@pytest.mark.parametrize(("every", "status"), [(19, None), (25, 75)])
def test_what_moves_within_the_limit_is_left_alone(
    kind: str, every: int, status: int | None, capfd: pytest.CaptureFixture[str]
) -> None:
    """The limit is 20 looks, here without any time between them."""
    ends, model = Ends(), nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    watch, looks = Watchdog(World(), 10.0, ends), itertools.count()
    watch.follow(model)

    def wait(seconds: float) -> bool:
        assert seconds == 30
        look = next(looks)
        if look % every == 0:
            model(torch.zeros(1, 3)) if kind == "forward" else watch.report("an update")
        return look == 200

    watch._over = SimpleNamespace(wait=wait)
    watch._watch()
    assert ends.status == status


def test_it_goes_with_its_block() -> None:
    with Watchdog(World(), 10.0) as watch:
        watch.report("something")
        assert watch.activity == "something"
    assert not watch._thread.is_alive()
