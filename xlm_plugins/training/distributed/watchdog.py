"""A thread that ends a run that hangs, and says where each rank was."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from torch import nn

from xlm_plugins.core.errors import RESUMABLE_STATUS
from xlm_plugins.core.messages import LOG
from xlm_plugins.training.distributed.process_group import World

_POLLS = 20
"""How often the thread checks for progress within the time limit."""


class Watchdog:
    """While entered, ends the process after some minutes without progress.

    Every rank has one.  Progress is every call of `report`, and every forward pass of a model that
    it follows.  The limit is counted in polls, not by a clock, so a process that was suspended
    (Ctrl-Z, `scontrol suspend`) does not count as hung.

    :param world: this process among the others.
    :param minutes: the longest time without progress.
    :param end: ends the process, even while its main thread is inside a library.
    """

    def __init__(self, world: World, minutes: float, end: Callable[[int], Any] = os._exit) -> None:
        self._world = world
        self._minutes = minutes
        self._end = end
        self._main = threading.get_ident()
        self._activity = "starting"
        self._n_beats = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def activity(self) -> str:
        """What was last reported, such as ``update 12 (mlm:en)``."""
        return self._activity

    def report(self, activity: str, *, is_phase: bool = True) -> None:
        """Record the current activity.

        :param activity: as users will read it if it never ends.
        :param is_phase: `--verbose` shows it; a single update is too little to show.
        """
        if is_phase:
            LOG.debug("%s", activity)
        self._activity = activity
        self._n_beats += 1

    def follow(self, model: nn.Module) -> None:
        """Count the forward passes of a model as progress, including those of generation."""
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):  # every pass through a stack meets one
                module.register_forward_hook(self._beat)

    def _beat(self, *_: object) -> None:
        self._n_beats += 1

    def _watch(self) -> None:
        n_idle, n_seen = 0, self._n_beats
        seconds = 60 * self._minutes / _POLLS
        while not self._over.wait(seconds):
            n_idle = n_idle + 1 if n_seen == self._n_beats else 0
            n_seen = self._n_beats
            if n_idle >= _POLLS:
                # One write, so that messages of several ranks do not mix.
                os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, self._message().encode())
                # The others poll within this time, and report too, as long as this one is there.
                if not self._over.wait(seconds):
                    self._end(RESUMABLE_STATUS)
                return

    def _message(self) -> str:
        frame = sys._current_frames().get(self._main)
        stack = traceback.format_stack(frame) if frame else ["  (no main thread)\n"]
        world = self._world
        return (
            f"\nrank {world.rank} of {world.world_size}: no progress for {self._minutes:g} minutes "
            f"(--hang-minutes), so it exits with status {RESUMABLE_STATUS}; current activity: "
            f"{self._activity}\n" + "".join(stack)
        )
