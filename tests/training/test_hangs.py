"""Two ranks of which one dies, fails, hangs or would do something else."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

SECONDS = 300
OPTIONS = shlex.split(
    "train --objective mlm --dim 16 --n-layers 1 --n-heads 2 --batch-tokens 256 --window 32 "
    "--steps 9 --log-every 1 --evaluate-every 0 --save-every 2 --threads 1"
)
FAULTY = """
import os, signal, sys, time
from xlm_plugins.cli.main import main
from xlm_plugins.core.errors import DataError
from xlm_plugins.training.trainer import Trainer

update = Trainer._update

def faulty(self, one, batches):
    if one.index == 5 and self.engine.rank == 1:
        {fault}
    update(self, one, batches)

Trainer._update = faulty
sys.exit(main(sys.argv[1:]))
"""
OTHERWISE = """
import os, sys
from xlm_plugins.cli.main import main

sys.exit(main([*sys.argv[1:], *({options} if os.environ["RANK"] == "1" else [])]))
"""
AsRanks = Callable[..., list[int]]


@pytest.mark.faults
@pytest.mark.parametrize(
    ("name", "fault", "statuses", "told"),
    [
        (
            "a rank killed", "os.kill(os.getpid(), signal.SIGKILL)", [75, -9],
            ["rank 0 of 2 lost another rank during: update 5 (mlm:", "--resume"],
        ),
        (
            "a rank that fails", "raise DataError('a shard is gone')", [2, 2],
            ["error: a shard is gone", "error: rank 1 failed: a shard is gone"],
        ),
        (
            "a rank that hangs", "time.sleep(600)", [75, 75],
            ["rank 1 of 2: no progress", "in faulty", "rank 0 of 2: no progress", "all_reduce"],
        ),
    ],
)  # fmt: skip
def test_all_ranks_end(
    name: str,
    fault: str,
    statuses: list[int],
    told: list[str],
    tiny_data: Path,
    tmp_path: Path,
    as_ranks: AsRanks,
    faults,
) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    limit = "--hang-minutes=0.5" if name == "a rank that hangs" else "--hang-minutes=10"
    command = [*OPTIONS, "--data", tiny_data, "--out", run, limit]
    faults.inject(name)
    found = as_ranks(["-c", FAULTY.format(fault=fault), *command], 2, log, SECONDS)
    said = log.read_text()
    assert found == statuses, said
    for part in told:
        assert part in said
    assert "Traceback" not in said
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == ["step-2", "step-4"]
    faults.survive(name, lost="the updates since the last checkpoint")


@pytest.mark.faults
@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--objective=clm"], "objectives of the next updates: rank 0 has "),
        (["--seed=2", "--window=16"], "--seed: rank 0 has 1, rank 1 has 2"),
    ],
)
def test_ranks_that_would_train_differently_are_found(
    options: list[str], told: str, tiny_data: Path, tmp_path: Path, as_ranks: AsRanks, faults
) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    faults.inject("ranks with other settings")
    command = [*OPTIONS, "--data", tiny_data, "--out", run]
    found = as_ranks(["-c", OTHERWISE.format(options=options), *command], 2, log, SECONDS)
    said = log.read_text()
    assert found == [2, 2], said
    assert told in said
    assert "the ranks are not about to do the same" in said
    assert not run.exists()
    faults.survive("ranks with other settings", lost="nothing")


REHEARSED = """
import sys
from xlm_plugins.cli.main import main
from xlm_plugins.training import preflight, run_job

if sys.argv.pop(1) == "without":
    run_job.rehearse = lambda *_: ""
else:
    tried = preflight.rehearse
    run_job.rehearse = lambda engine, rehearsals, watch: "".join(
        tried(engine, [one], watch) for one in rehearsals
    )  # all of them, as on a GPU
if "fp16" in sys.argv:
    import os
    os.environ["DS_ACCELERATOR"] = "cpu"
    from deepspeed.accelerator import get_accelerator
    type(get_accelerator()).is_fp16_supported = lambda self: True
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.faults
@pytest.mark.parametrize(("stage", "precision"), [(0, "fp32"), (1, "fp32"), (1, "fp16"),
                                                  (2, "fp32"), (3, "fp32")])  # fmt: skip
def test_the_rehearsal_leaves_no_trace_at_any_stage(
    stage: int, precision: str, tiny_data: Path, tmp_path: Path, as_ranks: AsRanks
) -> None:
    """Two ranks, with product keys and their running statistics: weights and moments bitwise."""
    written = []
    for which in ("with", "without"):
        run, log = tmp_path / which, tmp_path / "log"
        options = ["--data", tiny_data, "--out", run, "--objective=tlm", "--steps=3",
                   "--zero-stage", str(stage), "--precision", precision]  # fmt: skip
        if precision == "fp32":  # its BatchNorm has no half precision on a CPU
            options += ["--layer=pkm", "--pkm.n-keys=8", "--pkm.knn=4"]
        found = as_ranks(["-c", REHEARSED, which, *OPTIONS, *options], 2, log, SECONDS)
        assert found == [0, 0], log.read_text()
        last = run / "checkpoints" / "step-3"
        files = ("model.safetensors", "optimizer.safetensors", "state.json")
        written.append([(last / name).read_bytes() for name in files])
    assert written[0] == written[1]
