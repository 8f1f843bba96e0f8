"""Which process of how many this is, and joining the others.

torchrun and the deepspeed launcher set RANK and its companions; SLURM sets variables of its own,
from which the same five are derived.  A bare process is a world of one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore

from xlm_plugins.core.errors import RunError

COLLECTIVE_TIMEOUT = timedelta(minutes=30)
"""How long a rank waits for the others: longer than rank 0 takes to write a checkpoint."""

_DEFAULT_PORT = 29500


@dataclass(frozen=True)
class World:
    """This process among the run's processes.

    :param rank: its number among all, from 0; rank 0 writes files and reports.
    :param local_rank: its number on this machine, which is also its GPU's.
    :param world_size: how many there are.
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

        :raises RunError: a variable is not a number, or the ranks cannot be.
        """
        prefix = {"rank": "RANK", "local_rank": "LOCAL_RANK", "world_size": "WORLD_SIZE"}
        address = environment.get("MASTER_ADDR", cls.address)
        if "RANK" not in environment and "SLURM_PROCID" in environment:
            prefix = {
                "rank": "SLURM_PROCID",
                "local_rank": "SLURM_LOCALID",
                "world_size": "SLURM_NTASKS",
            }
            address = environment.get("MASTER_ADDR") or _first_host(environment)
        world = cls(
            **{
                field: _number(environment, variable, getattr(cls, field))
                for field, variable in prefix.items()
            },
            address=address,
            port=_number(environment, "MASTER_PORT", _DEFAULT_PORT),
        )
        if not (0 <= world.rank < world.world_size and world.local_rank >= 0):
            raise RunError(
                f"rank {world.rank} (local {world.local_rank}) of {world.world_size} cannot be",
                expected="0 <= RANK < WORLD_SIZE",
                remedy="start with torchrun or deepspeed, which set RANK, LOCAL_RANK, WORLD_SIZE",
            )
        return world

    @property
    def device(self) -> torch.device:
        """This process's GPU, or the CPU where there is none.

        :raises RunError: more processes on this machine than it has GPUs.
        """
        if not torch.cuda.is_available():
            return torch.device("cpu")
        if self.local_rank >= torch.cuda.device_count():
            raise RunError(
                f"local rank {self.local_rank} has no GPU of its own",
                expected=f"at most {torch.cuda.device_count()} processes on this machine",
                remedy="lower --nproc_per_node, or hide the GPUs: CUDA_VISIBLE_DEVICES=",
            )
        return torch.device("cuda", self.local_rank)


def choose_engine(wanted: str, world: World) -> str:
    """Resolve ``--engine``: auto is deepspeed for many processes and torch for one.

    :raises RunError: the plain torch engine is asked to serve many processes.
    """
    if wanted == "torch" and world.world_size > 1:
        raise RunError(
            f"the torch engine serves one process, and there are {world.world_size}",
            remedy="leave --engine at auto, or take --engine deepspeed",
        )
    if wanted == "auto":
        return "deepspeed" if world.world_size > 1 else "torch"
    return wanted


def start(world: World, engine: str) -> None:
    """Join the other processes.  DeepSpeed wants a process group even for a world of one.

    :param engine: what `choose_engine` said.
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
    for variable, value in named.items():  # DeepSpeed reads them, and asks for MPI if absent
        os.environ.setdefault(variable, str(value))
    backend = "nccl" if world.device.type == "cuda" else "gloo"
    # A world of one needs no port, so two such runs on one machine cannot collide.
    store = HashStore() if world.world_size == 1 else None
    dist.init_process_group(
        backend,
        init_method=None if store else f"tcp://{world.address}:{world.port}",
        store=store,
        rank=world.rank,
        world_size=world.world_size,
        timeout=COLLECTIVE_TIMEOUT,
    )


@contextmanager
def all_or_none() -> Iterator[None]:
    """Work that every process must come through: if it fails in one, it fails in all.

    The others would else wait for the one that failed until the timeout.  Within the block
    nothing may be collective.

    :raises RunError: another process failed.
    """
    try:
        yield
    except Exception:
        _any_failed(True)
        raise
    if _any_failed(False):
        raise RunError("another process of the run could not start; it says why")


def _any_failed(failed: bool) -> bool:
    if not dist.is_initialized():
        return failed
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    flag = torch.tensor(int(failed), device=device)
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)


def finish(failed: bool = False) -> None:
    """Leave the group, so that nothing is left to hang at exit.

    :param failed: this process gives up alone; it does not wait for the others.
    """
    if not dist.is_initialized():
        return
    if not failed:  # rank 0 holds the store that the others still talk to
        dist.barrier()
    dist.destroy_process_group()


def _number(environment: Mapping[str, str], variable: str, default: int) -> int:
    text = environment.get(variable, str(default))
    if not text.isdecimal():
        raise RunError(f"{variable}={text!r}", expected="a whole number, as launchers set it")
    return int(text)


def _first_host(environment: Mapping[str, str]) -> str:
    """The first name of SLURM_JOB_NODELIST where it is a plain list: ``node1,node2``."""
    names = environment.get("SLURM_JOB_NODELIST", World.address)
    first = names.split(",")[0]
    if "[" in first:
        raise RunError(
            f"SLURM_JOB_NODELIST={names!r} is not a plain list of hosts",
            remedy="export MASTER_ADDR=$(scontrol show hostnames $SLURM_JOB_NODELIST | head -n1)",
        )
    return first
