"""This process's rank among the processes of a run, and joining and leaving the process group.

torchrun and the deepspeed launcher set RANK and related variables; srun sets variables of its own,
from which the same five values are derived.  A process without a launcher is a world of one.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import HashStore, PrefixStore, Store, TCPStore

from xlm_plugins.core.errors import RESUMABLE_STATUS, RunError, XLMError
from xlm_plugins.training.distributed import slurm

_DEFAULT_PORT = 29500
_PORTS = range(1, 2**16)
_JOINED, _FAILED = "xlm/joined", "xlm/failed"
_SECONDS_TO_LEAVE = 30


@dataclass(frozen=True)
class World:
    """This process among the run's processes.

    :param rank: its number among all, from 0; rank 0 writes files and reports.
    :param local_rank: its number on this machine, which is also that of its GPU.
    :param world_size: number of processes.
    :param address: host of rank 0.
    :param port: where rank 0 listens.
    """

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    address: str = "127.0.0.1"
    port: int = _DEFAULT_PORT

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> World:
        """Read what the launcher set.

        :raises RunError: a variable is not a number, or the values are impossible.
        """
        named = {"rank": "RANK", "local_rank": "LOCAL_RANK", "world_size": "WORLD_SIZE"}
        address, port = cls.address, _DEFAULT_PORT
        if slurm.started_ranks(environment):
            named = {
                "rank": "SLURM_PROCID",
                "local_rank": "SLURM_LOCALID",
                "world_size": "SLURM_STEP_NUM_TASKS",
            }
            if "SLURM_JOB_NODELIST" in environment:
                address = slurm.hosts(environment["SLURM_JOB_NODELIST"])[0]
            port = slurm.port(environment) or port
        world = cls(
            **{
                field: _number(environment, variable, getattr(cls, field))
                for field, variable in named.items()
            },
            address=environment.get("MASTER_ADDR", address),
            port=_number(environment, "MASTER_PORT", port),
        )
        if not (0 <= world.rank < world.world_size and world.local_rank >= 0):
            raise RunError(
                f"rank {world.rank} (local {world.local_rank}) of {world.world_size} is impossible",
                expected="0 <= RANK < WORLD_SIZE",
                remedy="start with torchrun or deepspeed, which set RANK, LOCAL_RANK, WORLD_SIZE",
            )
        if world.port not in _PORTS:
            raise RunError(
                f"MASTER_PORT={world.port} is not a valid port",
                expected=f"a number from {_PORTS.start} to {_PORTS.stop - 1}",
            )
        return world

    @property
    def device(self) -> torch.device:
        """This process's GPU, or the CPU if there is none.

        :raises RunError: more processes on this machine than it has GPUs.
        """
        if not torch.cuda.is_available():
            return torch.device("cpu")
        if self.local_rank >= torch.cuda.device_count():
            raise RunError(
                f"local rank {self.local_rank} has no GPU",
                expected=f"at most {torch.cuda.device_count()} processes on this machine",
                remedy="lower --nproc_per_node, or hide the GPUs: CUDA_VISIBLE_DEVICES=",
            )
        return torch.device("cuda", self.local_rank)


def choose_engine(wanted: str, world: World) -> str:
    """Resolve ``--engine``: auto is deepspeed for several processes and torch for one.

    :raises RunError: the torch engine is requested for several processes.
    """
    if wanted == "torch" and world.world_size > 1:
        raise RunError(
            f"the torch engine supports one process, and there are {world.world_size}",
            remedy="leave --engine at auto, or use --engine deepspeed",
        )
    if wanted == "auto":
        return "deepspeed" if world.world_size > 1 else "torch"
    return wanted


def start(world: World, engine: str, minutes: float = 10.0) -> None:
    """Join the other processes.  DeepSpeed needs a process group even for a world of one.

    :param engine: what `choose_engine` returned.
    :param minutes: the watchdog's limit.  Joining gets less time, because its error says which
        ranks are missing; collectives get more, because the watchdog says where this rank is.
    :raises RunError: not all processes joined; says which are missing, and where they should join.
    """
    if world.device.type == "cuda":
        torch.cuda.set_device(world.device)
    if engine != "deepspeed" or dist.is_initialized():
        return
    named = {
        "RANK": world.rank,
        "LOCAL_RANK": world.local_rank,
        "WORLD_SIZE": world.world_size,
        "MASTER_ADDR": world.address,
        "MASTER_PORT": world.port,
    }
    for variable, value in named.items():  # DeepSpeed reads them, and requires MPI if absent
        os.environ.setdefault(variable, str(value))
    limit = timedelta(minutes=minutes)
    # A world of one needs no port, so two such runs on one machine cannot collide.
    store = HashStore() if world.world_size == 1 else _meet(world, 0.9 * limit)
    dist.init_process_group(
        "nccl" if world.device.type == "cuda" else "gloo",
        store=store,
        rank=world.rank,
        world_size=world.world_size,
        timeout=1.5 * limit,
    )


def _meet(world: World, limit: timedelta) -> Store:
    """Find the other ranks through rank 0, and check that they belong to this run.

    :raises RunError: a rank is missing, or belongs to another run.
    """
    where = f"{world.address}:{world.port}"
    # torchrun's agent listens there itself; otherwise rank 0 does.
    listens = world.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    # It restarts failed ranks, while the store still holds what the earlier ones left.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    try:
        meeting = TCPStore(
            world.address, world.port, None, listens, timeout=limit, wait_for_workers=False
        )
        store = PrefixStore(f"attempt-{attempt}", meeting)
        size = store.compare_set(f"{_JOINED}/world", "", str(world.world_size)).decode()
        n_before = store.add(_joined(world.rank), 1) - 1
    except dist.DistError as error:
        raise _not_met(world, where, str(error)) from error
    if size != str(world.world_size):
        raise RunError(
            f"rank {world.rank} is one of {world.world_size} processes, but others that meet at "
            f"{where} are of {size}",
            remedy="start all of them with the same WORLD_SIZE; two runs need two MASTER_PORTs",
        )
    if n_before:
        raise RunError(
            f"another process has already joined at {where} as rank {world.rank}",
            expected="one process per rank, and one run per port",
            remedy="give every process its own RANK, and each run its own MASTER_PORT",
        )
    _wait_for_all(world, where, store, limit)
    return store


def _wait_for_all(world: World, where: str, store: Store, limit: timedelta) -> None:
    """Wait second by second, so that Ctrl-C works.

    :raises RunError: a rank did not join.
    """
    keys = [_joined(rank) for rank in range(world.world_size)]
    end = time.monotonic() + limit.total_seconds()
    while True:
        try:
            store.wait(keys, min(limit, timedelta(seconds=1)))
            return
        except dist.DistError as error:
            if time.monotonic() > end:
                raise _missing(world, where, store, limit) from error


def _joined(rank: int) -> str:
    return f"{_JOINED}/{rank}"


def _not_met(world: World, where: str, why: str) -> RunError:
    if "EADDRINUSE" in why:
        return RunError(
            f"port {world.port}, on which rank 0 must listen, is in use on this machine",
            expected="a port that no other run uses",
            remedy=f"set another one for all ranks: MASTER_PORT={world.port + 1}, or "
            "--master_port of torchrun and deepspeed",
        )
    return RunError(
        f"rank {world.rank} of {world.world_size} did not reach rank 0 at {where}: "
        + why.partition("\n")[0].partition(" Exception raised")[0],
        remedy="see what rank 0 reports; check MASTER_ADDR, MASTER_PORT and the firewall",
    )


def _missing(world: World, where: str, store: Store, limit: timedelta) -> RunError:
    missing = [rank for rank in range(world.world_size) if not store.check([_joined(rank)])]
    shown = ", ".join(map(str, missing[:10])) + ", ..." * (len(missing) > 10)
    return RunError(
        f"rank {world.rank} waited at {where} for {limit.total_seconds() / 60:g} minutes, and of "
        f"{world.world_size} ranks these did not join: {shown}",
        remedy="see what they report; check that WORLD_SIZE processes were started",
    )


@contextmanager
def all_or_none() -> Iterator[None]:
    """While entered, this process does work that must succeed in all processes, or it fails in all.

    Otherwise the others would wait for the failed one until the timeout.  The block must not
    contain collectives.

    :raises RunError: another process failed.
    """
    try:
        yield
    except Exception:
        _any_failed(True)
        raise
    if _any_failed(False):
        raise RunError("another process of the run could not start; its own error says why")


def _any_failed(failed: bool) -> bool:
    if not dist.is_initialized():
        return failed
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    flag = torch.tensor(int(failed), device=device)
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)


def finish(failed: BaseException | None = None) -> None:
    """Leave the process group, so that nothing can hang at exit.

    :param failed: why this process fails; the others are told, and not waited for.
    """
    if not dist.is_initialized():
        return
    if failed is None:  # rank 0 serves the store that the others still use
        dist.barrier()
        dist.destroy_process_group()
        return
    store, is_alone = _store(), dist.get_world_size() == 1
    if not is_alone:
        signal.alarm(_SECONDS_TO_LEAVE)  # ends the process even if a library hangs at exit
        _leave_reason(store, dist.get_rank(), failed)
    dist.destroy_process_group()
    if not is_alone:
        time.sleep(1)  # the others notice, and read the reason from the store, which rank 0 serves


def failure_of_others() -> tuple[int, str] | None:
    """The exit status and the message that the first rank to fail left; None if it was killed."""
    try:
        store = _store()
        if not store.check([_FAILED]):
            return None
        status, _, why = store.get(_FAILED).decode().partition(" ")
    except (RuntimeError, ValueError):  # the store is gone with rank 0
        return None
    return int(status), why


def _leave_reason(store: Store, rank: int, error: BaseException) -> None:
    if isinstance(error, XLMError):
        status, why = error.exit_status, error.problem
    else:
        status, why = 1, f"{type(error).__name__}: {error}".partition("\n")[0]
    if status == RESUMABLE_STATUS:
        return  # another rank is at fault
    with suppress(RuntimeError):  # only the first failure counts; others follow from it
        store.compare_set(_FAILED, "", f"{status} rank {rank} failed: {why}")


def _store() -> Store:
    store: Store = dist.distributed_c10d._get_default_store()
    return store


def _number(environment: Mapping[str, str], variable: str, default: int) -> int:
    text = environment.get(variable, str(default))
    if not text.isdecimal():
        raise RunError(f"{variable}={text!r}", expected="a whole number, as launchers set it")
    return int(text)
