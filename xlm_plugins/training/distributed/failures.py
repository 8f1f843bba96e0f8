"""What torch raises when memory or another rank is gone, as an error that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from xlm_plugins.core.errors import RESUMABLE_STATUS, RunError
from xlm_plugins.training.distributed import process_group as launch
from xlm_plugins.training.distributed.process_group import World
from xlm_plugins.training.distributed.watchdog import Watchdog

_NO_MEMORY = ("DefaultCPUAllocator", "can't allocate memory", "out of memory")
_LOST = ("gloo", "Connection closed by peer", "Connection reset", "Application timeout", "NCCL")


class OutOfMemory(RunError):  # noqa: N818  # named as torch's
    """A batch does not fit into the memory."""


class LostRank(RunError):  # noqa: N818
    """Another process of the run is gone, or stands still; this one can go on another time."""

    exit_status = RESUMABLE_STATUS


class RankFailed(RunError):  # noqa: N818
    """Another process of the run ended with an error."""

    def __init__(self, problem: str, exit_status: int) -> None:
        super().__init__(problem)
        self.exit_status = exit_status


@contextmanager
def explained(watch: Watchdog, world: World, need: list[str]) -> Iterator[None]:
    """Turn what torch raises into errors that users can mend.

    :param watch: knows what the run is at.
    :param need: what is known of the memory that the run needs; filled as it becomes known.
    :raises OutOfMemory: there was no memory; says what was tried and what takes less.
    :raises LostRank: another process is gone without a word.
    :raises RankFailed: another process failed, and said why.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error)
        if _is_out_of_memory(error, text):
            raise _out_of_memory(watch, world, need, text) from error
        if world.world_size > 1 and _is_lost(error, text):
            raise _lost(watch, world, text) from error
        raise


def _is_out_of_memory(error: Exception, text: str) -> bool:
    kinds = (MemoryError, torch.cuda.OutOfMemoryError)
    return isinstance(error, kinds) or any(part in text for part in _NO_MEMORY)


def _out_of_memory(watch: Watchdog, world: World, need: list[str], text: str) -> OutOfMemory:
    has = ""
    if world.device.type == "cuda":
        free, total = torch.cuda.mem_get_info(world.device)
        has = f" ({total / 1e9:.1f} GB, {free / 1e9:.1f} GB of them free)"
    return OutOfMemory(
        f"rank {world.rank} ran out of memory on {world.device}{has} at: {watch.doing}"
        + (f": {_first_line(text)}" if text else ""),
        expected="; ".join(need),
        remedy="take smaller batches (--batch-tokens, or --batch-sentences of a task), or the same "
        "in more parts (--accumulation 2, 4, ...), more processes, or --zero-stage 2 or 3",
    )


def _is_lost(error: Exception, text: str) -> bool:
    return isinstance(error, dist.DistError) or any(part in text for part in _LOST)


def _lost(watch: Watchdog, world: World, text: str) -> RunError:
    doing = watch.doing
    watch.at("leaving")
    if told := launch.why_others_failed():
        status, why = told
        return RankFailed(why, status)
    return LostRank(
        f"rank {world.rank} of {world.world_size} lost another rank at: {doing}: "
        f"{_first_line(text)}",
        remedy="look at what the other ranks say; a run goes on from its last checkpoint: --resume",
    )


def _first_line(text: str) -> str:
    """What torch says, without where in its sources, and without its advice."""
    line = text.partition("\n")[0].partition(". This is typically")[0]
    return line.partition("] ")[2] if line.startswith("[/") else line
