"""Process settings that training speed on a CPU depends on."""

from __future__ import annotations

import ctypes
import sys

import numpy as np
import torch

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def tune_host(threads: int | None = None) -> None:
    """Set threads, memory allocation and denormals for training on a CPU; call it at start-up.

    glibc returns freed blocks of 128 KiB or more to the system, and the next allocation costs a
    page fault per 4 KiB: an update spends a quarter of its time there.  Raised thresholds keep the
    memory in the process.  Denormals, which a saturated softmax produces in large numbers, are up
    to a hundred times slower than zeros.

    :param threads: CPU threads per matrix product; torch's own choice if None.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    for dtype in (np.float32, np.float64):
        np.finfo(dtype)  # numpy before 2.4 measures them once, and would warn without denormals
    torch.set_flush_denormal(True)
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:  # musl has none, and needs none
            mallopt(_M_MMAP_THRESHOLD, 32 << 20)
            mallopt(_M_TRIM_THRESHOLD, (2 << 30) - 1)
