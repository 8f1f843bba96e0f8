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


def launch(folder: Path, *command: str) -> None:
    """Run a launcher that must succeed, and leave none of its processes behind."""
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
        assert status == 0, log.read()


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
def test_two_processes_are_as_one(
    one_process: Path, tiny_data: Path, tmp_path: Path, launcher: str
) -> None:
    # A process that did not find the other would fail on the run folder that the first one holds.
    command = LAUNCHERS[launcher].format(port=_free_port()).split()
    out = tmp_path / "run"
    launch(tmp_path, *command, "train", "--data", str(tiny_data), "--out", str(out), *OPTIONS)
    assert_same_run(out, one_process)
    settings = tomllib.loads((out / "config.toml").read_text())["train"]
    assert (settings["engine"], settings["zero-stage"]) == ("auto", 1)


@pytest.mark.slow
def test_a_run_goes_on_with_more_processes(one_process: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(one_process, run)
    shutil.rmtree(run / "checkpoints" / "step-6")
    command = LAUNCHERS["torchrun"].format(port=_free_port()).split()
    launch(tmp_path, *command, "train", "--resume", str(run))
    assert "going on with" in (tmp_path / "log").read_text()
    assert_same_run(run, one_process)


@pytest.mark.slow
def test_what_one_process_cannot_have_ends_them_all(
    one_process: Path, tiny_data: Path, tmp_path: Path
) -> None:
    """The run folder is taken, which rank 0 alone finds out; the other does not wait for it."""
    command = ["train", "--data", str(tiny_data), "--out", str(one_process), *OPTIONS]
    ranks = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _free_port()}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "xlm_plugins", *command],
            env={**os.environ, **ranks, "RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    try:
        told = [process.communicate(timeout=SECONDS)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [2, 2]
    assert "already holds a run" in told[0]
    assert "another process of the run could not start" in told[1]
