"""Which process of how many this is, whoever started it; and meeting the others."""

from __future__ import annotations

import socket
from dataclasses import replace
from datetime import timedelta

import pytest
import torch
from torch.distributed import TCPStore

from xlm_plugins.core.errors import RunError
from xlm_plugins.training.distributed import process_group as launch
from xlm_plugins.training.distributed.process_group import World, choose_engine


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
        "SLURM_NTASKS": "8",  # of the job, of which srun started some
        "SLURM_STEP_NUM_TASKS": "3",
        "SLURM_JOB_NODELIST": "node[08-10],alpha",
    }
    assert World.from_environment(environment) == World(2, 0, 3, "node08", 29500)
    named = {**environment, "MASTER_ADDR": "beta", "MASTER_PORT": "1234"}
    assert World.from_environment(named) == World(2, 0, 3, "beta", 1234)
    ports = {World.from_environment({**environment, "SLURM_JOB_ID": n}).port for n in "78"}
    assert len(ports) == 2
    assert all(1024 < port < 32768 for port in ports)


def test_a_batch_script_s_own_process_is_no_rank():
    alone = {"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_JOB_NODELIST": "n1"}
    assert World.from_environment(alone).world_size == 1
    with pytest.raises(RunError, match="8 tasks, and srun did not start") as error:
        World.from_environment({**alone, "SLURM_NTASKS": "8"})
    assert "srun" in error.value.remedy


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "x"},
        {"RANK": "2", "WORLD_SIZE": "2"},
        {"WORLD_SIZE": "-1"},
        {"MASTER_PORT": "0"},
        {"MASTER_PORT": "65536"},
        {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_JOB_NODELIST": "node[1-"},
    ],
)
def test_ranks_that_cannot_be_are_refused(environment):
    with pytest.raises(RunError):
        World.from_environment(environment)


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_a_port_that_is_taken_is_told(port):
    with socket.socket() as taken:
        taken.bind(("", port))
        taken.listen()
        with pytest.raises(RunError, match=f"port {port} is in use") as error:
            launch._meet(World(0, 0, 2, port=port), timedelta(seconds=2))
    assert f"MASTER_PORT={port + 1}" in error.value.remedy


def test_who_did_not_come_is_told(port):
    with pytest.raises(RunError, match="4 ranks these did not join: 1, 2, 3"):
        launch._meet(World(0, 0, 4, port=port), timedelta(seconds=0.5))


def test_a_rank_without_a_rank_0_says_where_it_looked(port):
    with pytest.raises(RunError, match=f"rank 1 of 2 did not reach rank 0 at 127.0.0.1:{port}"):
        launch._meet(World(1, 1, 2, port=port), timedelta(seconds=0.2))


@pytest.mark.parametrize(
    ("second", "told"),
    [
        (World(1, 1, 3), "one of 3 processes, .* are of 2"),
        (World(0, 0, 2), "already joined at .* as rank 0"),
    ],
)
def test_ranks_of_another_run_are_refused(port, second, told, monkeypatch):
    store = TCPStore("127.0.0.1", port, None, True, wait_for_workers=False)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")  # that one listens for all
    limit = timedelta(seconds=0.5)
    with pytest.raises(RunError, match="did not join: 1"):
        launch._meet(World(0, 0, 2, port=port), limit)
    with pytest.raises(RunError, match=told):
        launch._meet(replace(second, port=port), limit)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")  # it starts them again after a failure
    with pytest.raises(RunError, match="did not join: 1"):
        launch._meet(World(0, 0, 2, port=port), limit)
    del store


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
