"""Fixtures of the tests that break runs on purpose."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SERVER = Path(__file__).with_name("starts.py")

Start = Callable[..., list[int]]


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Run `xlm`, or a script, in real processes that start fast.

    ``start(arguments, log)`` gives the exit statuses of the ranks.  ``ranks=2``: processes of one
    run; ``kill=(7, 150)``: the last rank is killed at its 150th function call after the beginning
    of update 7, and then the others, too; ``script=path`` runs a Python file instead of `xlm`.
    """
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "DS_ACCELERATOR": "cpu",
    }
    with (tmp_path_factory.mktemp("starts") / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, SERVER], env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip

    def start(
        arguments: list[str],
        log: Path,
        *,
        ranks: int = 1,
        kill: tuple[int, int] | None = None,
        script: Path | None = None,
        seconds: float = 240,
    ) -> list[int]:
        request = {
            "arguments": [str(argument) for argument in arguments],
            "log": str(log),
            "ranks": ranks,
            "kill": kill,
            "script": str(script) if script else "",
            "seconds": seconds,
        }
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        return json.loads(server.stdout.readline())

    yield start
    server.stdin.close()
    server.wait(30)
    server.stdout.close()
