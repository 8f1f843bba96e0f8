"""What torch raises, as errors for users."""

from __future__ import annotations

import pytest
import torch

from xlm_plugins.training.distributed import process_group
from xlm_plugins.training.distributed.failures import LostRank, OutOfMemory, RankFailed, explained
from xlm_plugins.training.distributed.process_group import World
from xlm_plugins.training.distributed.watchdog import Watchdog

CLOSED = (
    "[/src/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:9646. This is "
    "typically caused by a remote worker crashing. Check the logs."
)


def through(error: Exception, world_size: int = 2) -> None:
    world = World(0, 0, world_size)
    watchdog = Watchdog(world, 10.0)
    watchdog.report("update 7 (tlm:en-fr)")
    with explained(watchdog, world, "memory per rank, about: 3 GB"):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:114] . DefaultCPUAllocator: can't allocate"),
        MemoryError(),
    ],
)
def test_out_of_memory_says_how_to_use_less(error: Exception) -> None:
    with pytest.raises(OutOfMemory, match=r"rank 0 .* update 7 \(tlm:en-fr\)") as raised:
        through(error)
    assert raised.value.exit_status == 2
    assert "3 GB" in raised.value.expected
    for option in ("--batch-tokens", "--accumulation", "--zero-stage"):
        assert option in raised.value.remedy


def test_the_cpu_allocator_s_error_is_recognized() -> None:
    with pytest.raises(OutOfMemory), explained(Watchdog(World(), 10.0), World()):
        torch.empty(1 << 62, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (CLOSED, ": Connection closed by peer [127.0.0.1]:9646\n"),
        ("[/src/gloo/x.cc:78] Timed out waiting 6000ms for recv", "Timed out waiting 6000ms"),
    ],
)
def test_a_lost_rank_is_one_line_and_resumable(text: str, shown: str) -> None:
    with pytest.raises(LostRank, match="rank 0 of 2 lost another rank during: update 7") as raised:
        through(RuntimeError(text))
    assert raised.value.exit_status == 75
    assert shown in f"{raised.value}"


def test_the_error_of_a_failed_rank_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    failure = (2, "rank 1 failed: a shard is gone")
    monkeypatch.setattr(process_group, "failure_of_others", lambda: failure)
    with pytest.raises(RankFailed, match="rank 1 failed: a shard is gone") as raised:
        through(RuntimeError(CLOSED))
    assert raised.value.exit_status == 2


@pytest.mark.parametrize("error", [RuntimeError("a bug"), ValueError("out of memory")])
def test_other_errors_are_not_changed(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        through(error)
    assert raised.value is error
    with pytest.raises(RuntimeError, match="Connection closed"):
        through(RuntimeError(CLOSED), world_size=1)
