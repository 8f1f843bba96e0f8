"""SLURM: the ranks that srun started, and requeueing a job.

Only environment variables are read; the only program called is ``scontrol requeue``.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping

from xlm_plugins.core.errors import RunError

FIRST_PORT, N_PORTS = 12000, 16000
"""Below Linux's ephemeral ports (32768 and up), above the usual ports of services."""

_ITEM = re.compile(r"((?:[^,\[\]]|\[[^\]]*\])+)(?:,|$)")
_SECONDS = 60


def hosts(text: str) -> list[str]:
    """The hosts of a node list as SLURM compresses it: ``node[01-03,7],login``.

    :raises RunError: it is not such a list.
    """
    items = _ITEM.findall(text)
    if not text or ",".join(items) != text:
        raise _no_list(text)
    return [host for item in items for host in _expanded(item, text)]


def _expanded(item: str, text: str) -> list[str]:
    """One item, whose brackets hold numbers and ranges; leading zeros are kept."""
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
        f"SLURM_JOB_NODELIST={text!r} is not a list of hosts",
        expected="names such as node[01-04,7],login",
        remedy="export MASTER_ADDR=$(scontrol show hostnames $SLURM_JOB_NODELIST | head -n1)",
    )


def started_ranks(environment: Mapping[str, str]) -> bool:
    """Whether srun started this process as one of its tasks.

    A batch script has SLURM_PROCID and SLURM_NTASKS too, but is only one process.

    :raises RunError: the job has several tasks, and nothing started them.
    """
    if "SLURM_PROCID" not in environment or "RANK" in environment:
        return False
    n_tasks = environment.get("SLURM_NTASKS", "1")
    if "SLURM_STEP_NUM_TASKS" not in environment and n_tasks != "1":
        raise RunError(
            f"this SLURM job has {n_tasks} tasks, and srun did not start this process as one",
            remedy="put srun in front of the command, or use torchrun or deepspeed; for a "
            "single process, set RANK=0 WORLD_SIZE=1",
        )
    return True


def port(environment: Mapping[str, str]) -> int | None:
    """A port derived from the job's id, so that two jobs on one host do not collide."""
    job = environment.get("SLURM_JOB_ID", "")
    return FIRST_PORT + int(job) % N_PORTS if job.isdecimal() else None


def requeue(environment: Mapping[str, str]) -> str:
    """Requeue this job, which ends it.

    :returns: the result, as a message for the user.
    """
    job = environment.get("SLURM_JOB_ID")
    if not job:
        return "there is no SLURM job to requeue"
    command = ["scontrol", "requeue", job]
    called = " ".join(command)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        return f"{called} failed: {error}; submit the job again"
    if done.returncode:
        why = done.stderr.strip() or f"exit status {done.returncode}"
        return f"{called} failed: {why}; submit the job again"
    return f"{called}: the job resumes when it is scheduled again"
