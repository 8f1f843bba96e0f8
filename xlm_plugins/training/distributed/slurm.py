"""SLURM: the ranks of a step that srun started, and putting a job back into the queue.

All that is read are variables; the one program that is called is ``scontrol requeue``.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping

from xlm_plugins.core.errors import RunError

FIRST_PORT, N_PORTS = 12000, 16000
"""Below what Linux gives out by itself (32768 and up), above what services listen on."""

_ITEM = re.compile(r"((?:[^,\[\]]|\[[^\]]*\])+)(?:,|$)")
_SECONDS = 60


def hosts(text: str) -> list[str]:
    """The hosts of a node list as SLURM compresses it: ``node[01-03,7],login``.

    :raises RunError: it is no such list.
    """
    items = _ITEM.findall(text)
    if not text or ",".join(items) != text:
        raise _no_list(text)
    return [host for item in items for host in _expanded(item, text)]


def _expanded(item: str, text: str) -> list[str]:
    """One item, whose brackets each hold numbers and ranges; zeros in front are kept."""
    before, bracket, rest = item.partition("[")
    if not bracket:
        return [item]
    inside, _, behind = rest.partition("]")
    numbers = []
    for part in inside.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if match is None:
            raise _no_list(text)
        first, last = match[1], match[2] or match[1]
        numbers += [f"{n:0{len(first)}}" for n in range(int(first), int(last) + 1)]
    return [f"{before}{number}{end}" for number in numbers for end in _expanded(behind, text)]


def _no_list(text: str) -> RunError:
    return RunError(
        f"SLURM_JOB_NODELIST={text!r} is no list of hosts",
        expected="names such as node[01-04,7],login",
        remedy="export MASTER_ADDR=$(scontrol show hostnames $SLURM_JOB_NODELIST | head -n1)",
    )


def started_ranks(environment: Mapping[str, str]) -> bool:
    """Whether srun started this process as one of its tasks.

    A batch script has SLURM_PROCID and SLURM_NTASKS as well, and is one process all the same.

    :raises RunError: the job has several tasks and nothing started them.
    """
    if "SLURM_PROCID" not in environment or "RANK" in environment:
        return False
    n_tasks = environment.get("SLURM_NTASKS", "1")
    if "SLURM_STEP_NUM_TASKS" not in environment and n_tasks != "1":
        raise RunError(
            f"SLURM gave this job {n_tasks} tasks, and srun did not start this process as one",
            remedy="write srun before the command, or start it with torchrun or deepspeed; for one "
            "process alone set RANK=0 WORLD_SIZE=1",
        )
    return True


def port(environment: Mapping[str, str]) -> int | None:
    """A port that follows from the job, so that two jobs on one host do not meet."""
    job = environment.get("SLURM_JOB_ID", "")
    return FIRST_PORT + int(job) % N_PORTS if job.isdecimal() else None


def requeue(environment: Mapping[str, str]) -> str:
    """Put this job back into the queue, which ends it.

    :returns: what came of it, for the user.
    """
    job = environment.get("SLURM_JOB_ID")
    if not job:
        return "there is no SLURM job to put back into the queue"
    command = ["scontrol", "requeue", job]
    told = " ".join(command)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        return f"{told} failed: {error}; submit the job again"
    if done.returncode:
        why = done.stderr.strip() or f"exit status {done.returncode}"
        return f"{told} failed: {why}; submit the job again"
    return f"{told}: the job goes on when it is its turn again"
