"""Starts `xlm` again and again, each time in a separate process, and kills it on request.

    python starts.py     (a JSON request a line on standard input, an answer a line on output)

A start costs seconds of imports, so this process imports everything once and forks; it never
computes, so that no thread of torch is lost in a fork.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import deepspeed  # noqa: F401  # for the children

from xlm_plugins.cli.main import main
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.training import pretraining  # noqa: F401
from xlm_plugins.training.trainer import Trainer


class Countdown:
    """Ends this process with SIGKILL at its n-th function call, in Python or C, from now on."""

    def __init__(self, n_calls: int) -> None:
        self.left = n_calls

    def __call__(self, frame: Any, event: str, argument: Any) -> None:
        if event in ("call", "c_call"):
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def arm(update: int, n_calls: int) -> None:
    """Arrange to be killed at the n-th function call after the start of an update."""
    do_update = Trainer._update

    def update_and_count(self: Trainer, drawn: Any, batches: Any) -> None:
        if drawn.index == update:
            sys.setprofile(Countdown(n_calls))
        do_update(self, drawn, batches)

    Trainer._update = update_and_count


def run(request: dict[str, Any], rank: int, port: int) -> int:
    """The work of a child process: one command or script, as one rank."""
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    if request["ranks"] > 1:
        world = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": request["ranks"]}
        world |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in world.items()})
    if request["kill"] and rank == request["ranks"] - 1:
        arm(*request["kill"])
    if not request["script"]:
        return main(request["arguments"])
    sys.argv = [request["script"], *request["arguments"]]
    runpy.run_path(request["script"], run_name="__main__")
    return 0


def fork(request: dict[str, Any], rank: int, port: int) -> int:
    """Start one rank; returns its process id."""
    if child := os.fork():
        return child
    status = 1
    try:
        status = run(request, rank, port)
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else bool(ended.code)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def wait(children: list[int], seconds: float) -> list[int]:
    """Their exit statuses; once one is killed, or time is up, all are killed."""
    statuses: dict[int, int] = {}
    ends = time.monotonic() + seconds
    while len(statuses) < len(children):
        for child in children:
            if child not in statuses and (found := os.waitpid(child, os.WNOHANG))[0]:
                statuses[child] = os.waitstatus_to_exitcode(found[1])
        if time.monotonic() > ends or -signal.SIGKILL in statuses.values():
            for child in children:
                if child not in statuses:
                    os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    return [statuses[child] for child in children]


def serve() -> None:
    Plugins.discover()
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    for line in requests:
        request = json.loads(line)
        Path(request["log"]).touch()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        children = [fork(request, rank, port) for rank in range(request["ranks"])]
        print(json.dumps(wait(children, request["seconds"])), file=answers, flush=True)


if __name__ == "__main__":
    serve()
