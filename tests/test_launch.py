from __future__ import annotations

import pytest
import torch

from xlm_plugins.core.errors import RunError
from xlm_plugins.training import launch
from xlm_plugins.training.launch import World, choose_engine


def test_a_bare_process_is_alone():
    assert World.from_environment({}) == World(0, 0, 1, "127.0.0.1", 29500)


def test_what_torchrun_sets_is_read():
    environment = {
        "RANK": "3",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "4",
        "MASTER_ADDR": "node7",
        "MASTER_PORT": "1234",
        "SLURM_PROCID": "9",  # torchrun inside a SLURM job: its own variables count
    }
    assert World.from_environment(environment) == World(3, 1, 4, "node7", 1234)


def test_slurm_s_own_variables_are_the_fallback():
    environment = {
        "SLURM_PROCID": "2",
        "SLURM_LOCALID": "0",
        "SLURM_NTASKS": "3",
        "SLURM_JOB_NODELIST": "alpha,beta,gamma",
    }
    assert World.from_environment(environment) == World(2, 0, 3, "alpha", 29500)


def test_a_compressed_node_list_says_what_to_export():
    environment = {"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_JOB_NODELIST": "node[1-2]"}
    with pytest.raises(RunError, match="MASTER_ADDR"):
        World.from_environment(environment)


@pytest.mark.parametrize(
    "environment", [{"RANK": "x"}, {"RANK": "2", "WORLD_SIZE": "2"}, {"WORLD_SIZE": "-1"}]
)
def test_ranks_that_cannot_be_are_refused(environment):
    with pytest.raises(RunError):
        World.from_environment(environment)


def test_many_processes_take_deepspeed():
    assert choose_engine("auto", World()) == "torch"
    assert choose_engine("auto", World(world_size=2)) == "deepspeed"
    assert choose_engine("deepspeed", World()) == "deepspeed"
    with pytest.raises(RunError, match="one process"):
        choose_engine("torch", World(world_size=2))


def test_the_torch_engine_joins_nothing():
    launch.start(World(), "torch")
    assert not torch.distributed.is_initialized()
    launch.finish()


def test_a_gpu_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert World(local_rank=0).device == torch.device("cuda", 0)
    with pytest.raises(RunError, match="local rank 1"):
        _ = World(1, 1, 2).device


def test_alone_a_failure_is_its_own():
    with pytest.raises(ValueError, match="mine"), launch.all_or_none():
        raise ValueError("mine")
    with launch.all_or_none():
        pass
