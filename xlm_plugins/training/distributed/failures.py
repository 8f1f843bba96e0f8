"""What torch raises when memory runs out or a rank is lost, as errors that say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from xlm_plugins.core.errors import RESUMABLE_STATUS, RunError
from xlm_plugins.training.distributed import process_group
from xlm_plugins.training.distributed.process_group import World
from xlm_plugins.training.distributed.watchdog import Watchdog

_NO_MEMORY = ("DefaultCPUAllocator", "can't allocate memory", "out of memory")
_LOST = ("gloo", "Connection closed by peer", "Connection reset", "Application timeout", "NCCL")


class OutOfMemory(RunError):  # noqa: N818  # named as torch's
    """A batch does not fit into memory."""


class LostRank(RunError):  # noqa: N818
    """Another process of the run is gone or hangs; the run can be resumed."""

    exit_status = RESUMABLE_STATUS


class RankFailed(RunError):  # noqa: N818
    """Another process of the run ended with an error."""

    def __init__(self, problem: str, exit_status: int) -> None:
        super().__init__(problem)
        self.exit_status = exit_status


@contextmanager
def explained(watchdog: Watchdog, world: World, needs: str = "") -> Iterator[None]:
    """Turn what torch raises into errors that users can act on.

    :param watchdog: knows the current activity.
    :param needs: the memory that the run needs, where it is known.
    :raises OutOfMemory: memory ran out; says during what, and how to use less.
    :raises LostRank: another process is gone without saying why.
    :raises RankFailed: another process failed, and said why.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error)
        if _is_out_of_memory(error, text):
            raise _out_of_memory(watchdog, world, needs, text) from error
        if world.world_size > 1 and _is_lost(error, text):
            raise _lost(watchdog, world, text) from error
        raise


def _is_out_of_memory(error: Exception, text: str) -> bool:
    kinds = (MemoryError, torch.cuda.OutOfMemoryError)
    return isinstance(error, kinds) or any(part in text for part in _NO_MEMORY)


def _out_of_memory(watchdog: Watchdog, world: World, needs: str, text: str) -> OutOfMemory:
    has = ""
    if world.device.type == "cuda":
        free, total = torch.cuda.mem_get_info(world.device)
        has = f" ({total / 1e9:.1f} GB, {free / 1e9:.1f} GB free)"
    return OutOfMemory(
        f"rank {world.rank} ran out of memory on {world.device}{has} during: {watchdog.activity}"
        + (f": {_first_line(text)}" if text else ""),
        expected=needs,
        remedy="use smaller batches (--batch-tokens, or --batch-sentences for a task), gradient "
        "accumulation (--accumulation 2, 4, ...), more processes, or --zero-stage 2 or 3",
    )


def _is_lost(error: Exception, text: str) -> bool:
    return isinstance(error, dist.DistError) or any(part in text for part in _LOST)


def _lost(watchdog: Watchdog, world: World, text: str) -> RunError:
    activity = watchdog.activity
    watchdog.report("leaving")
    if failure := process_group.failure_of_others():
        status, why = failure
        return RankFailed(why, status)
    return LostRank(
        f"rank {world.rank} of {world.world_size} lost another rank during: {activity}: "
        f"{_first_line(text)}",
        remedy="see what the other ranks report; --resume continues from the last checkpoint",
    )


def _first_line(text: str) -> str:
    """torch's message without its source location and its advice."""
    line = text.partition("\n")[0].partition(". This is typically")[0]
    return line.partition("] ")[2] if line.startswith("[/") else line
