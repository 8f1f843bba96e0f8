"""A process that saves once, and on request is killed at its n-th file operation.

    python saver.py RUN NUMBER N_VALUES [KILL_AT]

What is saved as number 7 holds sevens, so that a torn mixture would show.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from xlm_plugins.core.files import write_json
from xlm_plugins.runs.folder import RunFolder
from xlm_plugins.training.engines.training_state import TrainingState, save_training_state


class KillAtFile:
    """Ends this process with SIGKILL before its n-th file operation: open, write, rename etc."""

    def __init__(self, n: int) -> None:
        self.left = n

    def __call__(self, frame: Any, event: str, called: Any) -> None:
        if event == "c_call":
            owner = getattr(called, "__self__", None)
            touches = getattr(called, "__module__", None) in ("posix", "_io")
            self.left -= touches or isinstance(owner, io.IOBase) or "serialize" in called.__name__
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def filler(number: int, n_values: int) -> Callable[[Path], None]:
    """Fills a checkpoint, or a bundle, with a number."""
    values = {"a": torch.full((n_values,), float(number))}

    def fill(folder: Path) -> None:
        write_json(folder / "model.json", number)
        save_training_state(folder, TrainingState(values, {"exp_avg": values}, number))

    return fill


def save(run: Path, number: int, n_values: int, kill_at: int = 0) -> None:
    fill = filler(number, n_values)
    if kill_at:
        sys.setprofile(KillAtFile(kill_at))
    folder = RunFolder.reopen(run)
    folder.save_best(["valid_mlm_ppl"], fill, ["valid_mlm_ppl"])
    folder.save_checkpoint(number, fill, keep=2)
    folder.close()
    sys.setprofile(None)


if __name__ == "__main__":
    save(Path(sys.argv[1]), *map(int, sys.argv[2:]))
