"""A thread that ends a run in which nothing moves any more, and says where every rank was."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from torch import nn

from xlm_plugins.core.errors import RESUMABLE_STATUS
from xlm_plugins.training.distributed.process_group import World

_POLLS = 20
"""Looks that the thread takes within the limit."""


class Watchdog:
    """While entered, ends the process after so many minutes without progress.

    It lives in every rank.  Progress is every call of `at`, and every forward pass of a module
    that it follows.  The limit is counted in looks, not by a clock, so a process that was stopped
    (Ctrl-Z, `scontrol suspend`) has not hung.

    :param world: this process among the others.
    :param minutes: how long nothing may move.
    :param end: ends the process, even where its main thread is deep in a library.
    """

    def __init__(self, world: World, minutes: float, end: Callable[[int], Any] = os._exit) -> None:
        self._world = world
        self._minutes = minutes
        self._end = end
        self._main = threading.get_ident()
        self._doing = "starting"
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
    def doing(self) -> str:
        """What the run is at: ``update 12 (mlm:en)``."""
        return self._doing

    def at(self, doing: str) -> None:
        """Something begins.

        :param doing: what a person shall read if it does not end.
        """
        self._doing = doing
        self._n_beats += 1

    def follow(self, model: nn.Module) -> None:
        """Take the forward passes of a model for progress, those of a generation too."""
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):  # whatever goes through a stack comes by one
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
                # One write, so that what several ranks say does not mix.
                os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, self._told().encode())
                # The others look within this time, and tell too, if this one is still there.
                if not self._over.wait(seconds):
                    self._end(RESUMABLE_STATUS)
                return

    def _told(self) -> str:
        frame = sys._current_frames().get(self._main)
        stack = traceback.format_stack(frame) if frame else ["  (no main thread)\n"]
        world = self._world
        return (
            f"\nrank {world.rank} of {world.world_size}: nothing moved for {self._minutes:g} "
            f"minutes (--hang-minutes), so it ends with status {RESUMABLE_STATUS}; it was at: "
            f"{self._doing}\n" + "".join(stack)
        )
