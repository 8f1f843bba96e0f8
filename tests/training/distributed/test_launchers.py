"""Two processes, started by the launchers that people use, train as one process does.

In fp32 without dropout, without query BatchNorm (which sees a rank's own tokens), and with an
epsilon that keeps Adam from making rounding large.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from xlm_plugins.cli.main import main

SECONDS = 240
BIN = Path(sys.executable).parent
OPTIONS = shlex.split(
    "--objective mlm --objective tlm --layer pkm --pkm.no-query-batchnorm --dropout 0 --eps 1e-6 "
    "--dim 16 --n-layers 2 --n-heads 2 --pkm.n-keys 8 --pkm.knn 4 --pkm.heads 2 --pkm.k-dim 8 "
    "--batch-tokens 512 --window 32 --lr 1e-2 --warmup 2 --steps 6 --log-every 1 "
    "--evaluate-every 0 --save-every 3 --threads 1"
)


pytestmark = pytest.mark.skipif(
    Path("/dev/nvidia0").exists(), reason="the deepspeed launcher gives every process a GPU"
)


@pytest.fixture(scope="module")
def one_process(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that the others must equal, of the torch engine."""
    out = tmp_path_factory.mktemp("one") / "run"
    assert main(["train", "--data", str(tiny_data), "--out", str(out), *OPTIONS]) == 0
    return out


def launch(folder: Path, *command: str, succeeds: bool = True) -> str:
    """Run a launcher, and leave none of its processes behind; returns what it printed."""
    environment = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
        "CUDA_VISIBLE_DEVICES": "",
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
    }
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            status = process.wait(SECONDS)
        finally:
            for one in reversed(_tree(process.pid)):
                os.kill(one, signal.SIGKILL)
            process.wait()
        log.seek(0)
        printed = log.read()
    assert (status == 0) is succeeds, printed
    return printed


def _tree(root: int) -> list[int]:
    """A process and its descendants, which may lead sessions of their own; none once it is gone."""
    found = [root] if Path(f"/proc/{root}").exists() else []
    for process in found:
        for path in Path(f"/proc/{process}/task").glob("*/children"):
            found += map(int, path.read_text().split())
    return found


def _free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def _lines(run: Path, kind: str) -> list[dict[str, Any]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["kind"] == kind]


def assert_same_run(run: Path, reference: Path) -> None:
    """The same steps and data, the losses to 1e-5, and so the final perplexities."""
    lines, expected = _lines(run, "train"), _lines(reference, "train")
    assert len(expected) == 6
    for name in ("step", "objective", "languages", "tokens"):
        assert [line[name] for line in lines] == [line[name] for line in expected]
    losses, wanted = ([line["loss"] for line in each] for each in (lines, expected))
    assert losses == pytest.approx(wanted, abs=1e-5)
    (measured,), (known,) = _lines(run, "evaluation"), _lines(reference, "evaluation")
    assert measured.keys() == known.keys()
    for name in (name for name in known if name.endswith("_ppl")):
        assert measured[name] == pytest.approx(known[name], rel=1e-4)


def test_six_steps_train_both_objectives_and_learn(one_process: Path) -> None:
    """What the others are compared with is worth the comparison."""
    lines = _lines(one_process, "train")
    assert {line["objective"] for line in lines} == {"mlm", "tlm"}
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.05


LAUNCHERS = {
    "deepspeed": "deepspeed --num_gpus 2 --no_local_rank --no_python --master_port {port} xlm",
    "torchrun": "torchrun --nproc_per_node 2 --no-python --master_port {port} xlm",
    "module": "deepspeed --num_accelerators 2 --master_port {port} --module xlm_plugins",
}


@pytest.mark.parametrize(
    "launcher", ["deepspeed", "torchrun", pytest.param("module", marks=pytest.mark.slow)]
)
def test_two_processes_equal_one(
    one_process: Path, tiny_data: Path, tmp_path: Path, launcher: str
) -> None:
    # A process that did not find the other would fail on the run folder that the first one holds.
    command = LAUNCHERS[launcher].format(port=_free_port()).split()
    out = tmp_path / "run"
    launch(tmp_path, *command, "train", "--data", str(tiny_data), "--out", str(out), *OPTIONS)
    assert_same_run(out, one_process)
    settings = tomllib.loads((out / "config.toml").read_text())["train"]
    assert (settings["engine"], settings["zero-stage"]) == ("auto", 1)


BAD_LOSS = """
import sys
from xlm_mlm.objective import MaskedLanguageModelling as Objective
from xlm_plugins.cli.main import main
sound = Objective.loss
def loss(self, model, batch):
    output = sound(self, model, batch)
    return output._replace(loss=output.loss / output.n_targets)
Objective.loss = loss
sys.exit(main())
"""


@pytest.mark.slow
def test_both_processes_refuse_a_loss_that_is_no_sum(tiny_data: Path, tmp_path: Path) -> None:
    """With sharded parameters, a rank that went on alone would wait for the other for ever."""
    (tmp_path / "bad.py").write_text(BAD_LOSS)
    command = f"torchrun --nproc_per_node 2 --master_port {_free_port()} bad.py".split()
    train = ["train", "--data", str(tiny_data), "--out", "run", *OPTIONS, "--zero-stage", "3"]
    printed = launch(tmp_path, *command, *train, succeeds=False)
    assert "the loss of mlm:" in printed
    assert "is not a sum over independent samples" in printed
    assert not (tmp_path / "run").exists()


@dataclass(frozen=True)
class Node:
    """A machine, or what passes for one: how a command is run there, and its address."""

    prefix: tuple[str, ...]
    address: str


@pytest.fixture
def nodes(capsys: pytest.CaptureFixture[str]) -> Iterator[list[Node]]:
    """Two network namespaces that reach each other by addresses of their own, and nothing else.

    Where that is not allowed, this machine by its loopback, twice.
    """
    names = [f"xlm-{os.getpid()}-{index}" for index in (0, 1)]
    addresses = ["10.213.0.1", "10.213.0.2"]
    ends = [f"xlm{os.getpid() % 10**6}{index}" for index in (0, 1)]
    try:
        _ip(f"link add {ends[0]} type veth peer name {ends[1]}")
        for name, end, address in zip(names, ends, addresses, strict=True):
            _ip(f"netns add {name}")
            _ip(f"link set {end} netns {name} name node")
            _ip(f"-n {name} addr add {address}/24 dev node")
            for link in ("lo", "node"):
                _ip(f"-n {name} link set {link} up")
    except (OSError, subprocess.CalledProcessError) as error:
        _take_down(names, ends)
        with capsys.disabled():
            print(f"\nno network namespaces here, so two nodes on loopback: {error}")
        yield [Node((), "127.0.0.1"), Node((), "127.0.0.1")]
        return
    try:
        entered = [("ip", "netns", "exec", n, "env", "GLOO_SOCKET_IFNAME=node") for n in names]
        yield [Node(prefix, a) for prefix, a in zip(entered, addresses, strict=True)]
    finally:
        _take_down(names, ends)


def _ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True, capture_output=True)


def _take_down(names: list[str], ends: list[str]) -> None:
    for name in names:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    subprocess.run(["ip", "link", "del", ends[0]], capture_output=True, check=False)


MULTI_NODE = {
    "torchrun": "torchrun --nnodes 2 --node_rank {rank} --nproc_per_node 1 "
    "--master_addr {address} --master_port {port} --no-python xlm",
    "deepspeed": "deepspeed --hostfile hostfile --no_ssh --node_rank {rank} "
    "--master_addr {address} --master_port {port} --no_local_rank --no_python xlm",
}


@pytest.mark.faults
@pytest.mark.parametrize("launcher", MULTI_NODE)
def test_two_nodes_are_as_one_process(
    one_process: Path, tiny_data: Path, tmp_path: Path, nodes: list[Node], launcher: str
) -> None:
    out, port = tmp_path / "run", _free_port()
    hosts = [node.address for node in nodes]
    hosts = hosts if hosts[0] != hosts[1] else ["localhost", "127.0.0.1"]
    (tmp_path / "hostfile").write_text("".join(f"{host} slots=1\n" for host in hosts))
    commands = []
    for rank, node in enumerate(nodes):
        start = MULTI_NODE[launcher].format(rank=rank, address=nodes[0].address, port=port)
        command = [*node.prefix, *start.split(), "train", "--data", str(tiny_data)]
        commands.append(shlex.join([*command, "--out", str(out), *OPTIONS]))
    launch(tmp_path, "bash", "-c", f"{commands[1]} & {commands[0]} && wait $!")
    assert_same_run(out, one_process)


SRUN = """#!/bin/bash
# What srun gives its tasks on one node: srun -n N COMMAND...
n=$2; shift 2
for ((i = 0; i < n; i++)); do
    SLURM_PROCID=$i SLURM_LOCALID=$i SLURM_STEP_NUM_TASKS=$n "$@" & tasks+=($!)
done
worst=0
for task in "${tasks[@]}"; do wait "$task" || worst=$?; done
exit $worst
"""


@pytest.mark.faults
def test_srun_s_tasks_are_ranks(
    one_process: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but what SLURM sets: neither an address nor a port."""
    stub, out = tmp_path / "srun", tmp_path / "run"
    stub.write_text(SRUN)
    stub.chmod(0o755)
    for name, value in {"SLURM_JOB_ID": str(os.getpid()), "SLURM_NTASKS": "2",
                        "SLURM_JOB_NODELIST": "localhost"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    command = [str(stub), "-n", "2", "xlm", "train", "--data", str(tiny_data), "--out", str(out)]
    launch(tmp_path, *command, *OPTIONS)
    assert_same_run(out, one_process)


@pytest.mark.slow
def test_a_run_goes_on_with_more_processes(one_process: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(one_process, run)
    shutil.rmtree(run / "checkpoints" / "step-6")
    command = LAUNCHERS["torchrun"].format(port=_free_port()).split()
    launch(tmp_path, *command, "train", "--resume", str(run))
    assert "resuming from" in (tmp_path / "log").read_text()
    assert_same_run(run, one_process)


@pytest.mark.slow
def test_what_one_process_cannot_have_ends_them_all(
    one_process: Path, tiny_data: Path, tmp_path: Path, as_ranks: Callable[..., list[int]]
) -> None:
    """The run folder is taken, which rank 0 alone finds out; the other does not wait for it."""
    log = tmp_path / "log"
    command = ["-m", "xlm_plugins", "train", "--data", tiny_data, "--out", one_process, *OPTIONS]
    assert as_ranks(command, 2, log, SECONDS) == [2, 2]
    for told in ("already holds a run", "another process of the run could not start"):
        assert log.read_text().count(told) == 1
