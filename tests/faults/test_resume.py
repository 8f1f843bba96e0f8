"""A run that is killed and resumed again and again equals an undisturbed one.

The kills are SIGKILL, of real processes, at moments drawn from a fixed seed: a step, and a number
of function calls behind its beginning, which may fall into the update, a log line, an evaluation
or a save.
"""

from __future__ import annotations

import math
import random
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xlm_plugins.testing.runs import metrics_of

N_STEPS = 40
TINY = (
    "--dim 16 --n-layers 2 --n-heads 2 --batch-tokens 256 --window 32 --lr 1e-2 --warmup 2 "
    f"--steps {N_STEPS} --evaluate-every 10 --save-every 3 --keep 2 --threads 1 "
)
MEMORY = (
    "--objective mlm --objective tlm:en-fr --layer pkm --pkm.n-keys 8 --pkm.knn 4 --pkm.heads 2 "
    "--pkm.k-dim 8 --log-every 4 "
)
TRANSLATION = (
    "--objective mlm --objective ae --objective bt --translate-sentences 4 --max-length 30 "
    "--log-every 4 "
)
ACROSS = "--dropout 0 --eps 1e-6 --log-every 1 "
"""With these, another number of ranks changes nothing but rounding (docs/reliability.md)."""
NO_BATCHNORM = "--pkm.no-query-batchnorm "

Kill = tuple[int, int]
Start = Callable[..., list[int]]
Run = Callable[..., Path]


def kills(n: int, seed: int) -> list[Kill]:
    """Moments in order: an update, and a number of function calls after its start."""
    rng = random.Random(seed)
    return sorted((rng.randrange(N_STEPS - 4), rng.randrange(1, 12_000)) for _ in range(n))


def checkpoints(run: Path) -> dict[str, bytes]:
    """The tensors in the checkpoints that a run has kept, by the files' paths."""
    folder = run / "checkpoints"
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.safetensors")}


@pytest.fixture
def whole(start: Start, tiny_data: Path, tmp_path: Path) -> Run:
    """Trains undisturbed: ``whole(options, ranks=1)``."""

    def whole(options: str, ranks: int = 1) -> Path:
        out, log = tmp_path / "whole", tmp_path / "whole.log"
        command = ["train", f"--data={tiny_data}", f"--out={out}", *shlex.split(options)]
        assert start(command, log, ranks=ranks) == [0] * ranks, log.read_text()
        return out

    return whole


@pytest.fixture
def killed(start: Start, tiny_data: Path, tmp_path: Path, faults: Any) -> Run:
    """Trains with kills: ``killed(options, kills, ranks=(1, 2))`` alternates numbers of ranks.

    Options may be one text for each number of ranks.
    """

    def killed(options: str, moments: list[Kill], ranks: tuple[int, ...], fault: str) -> Path:
        out, log = tmp_path / "killed", tmp_path / "killed.log"
        command = ["train", f"--data={tiny_data}", f"--out={out}", "--resume=auto"]
        command += shlex.split(options)
        for index, moment in enumerate([*moments, None]):
            n_ranks = ranks[index % len(ranks)]
            if moment:
                faults.inject(fault)
            statuses = start(command, log, ranks=n_ranks, kill=moment)
            assert statuses == [-9 if moment else 0] * n_ranks, (moment, log.read_text())
        told = log.read_text()
        assert told.count("resuming from") >= len(moments) / 2, told
        return out

    return killed


def assert_bitwise(run: Path, reference: Path) -> None:
    """Every metric, weight and moment is equal; and nothing is left of the kills."""
    assert metrics_of(run) == metrics_of(reference)
    assert len(metrics_of(reference)) > N_STEPS / 4
    assert checkpoints(run) == checkpoints(reference)
    assert len(checkpoints(reference)) == 4  # weights and moments of the newest two
    hidden = [path.name for path in run.glob("*/.*")]
    assert not hidden, hidden


SAME = [
    pytest.param(MEMORY, "torch", 1, id="mlm-tlm-pkm-torch"),
    pytest.param(MEMORY, "deepspeed --zero-stage 1", 1, id="mlm-tlm-pkm-zero1"),
    pytest.param(MEMORY, "deepspeed --zero-stage 2", 1, id="mlm-tlm-pkm-zero2"),
    pytest.param(MEMORY, "deepspeed --zero-stage 2", 2, id="mlm-tlm-pkm-zero2-two-ranks"),
    pytest.param(TRANSLATION, "torch", 1, id="mlm-ae-bt-torch"),
    pytest.param(TRANSLATION, "deepspeed --zero-stage 1", 1, id="mlm-ae-bt-zero1"),
]


@pytest.mark.faults
@pytest.mark.parametrize(("objectives", "engine", "ranks"), SAME)
def test_twenty_kills_change_nothing(
    whole: Run, killed: Run, faults: Any, objectives: str, engine: str, ranks: int
) -> None:
    options = f"{TINY}{objectives}--engine {engine}"
    fault = f"SIGKILL at a random moment, {ranks} process{'es' * (ranks > 1)}"
    run = killed(options, kills(20, seed=6), (ranks,), fault)
    assert_bitwise(run, whole(options, ranks))
    for _ in range(20):
        faults.survive(fault)


def test_two_kills_change_nothing(whole: Run, killed: Run, faults: Any) -> None:
    """The same in short: one kill in or near an update, one in or near a save."""
    options = f"{TINY}{MEMORY}--engine torch"
    fault = "SIGKILL at a random moment, 1 process"
    run = killed(options, kills(2, seed=5), (1,), fault)
    assert_bitwise(run, whole(options))
    for _ in range(2):
        faults.survive(fault)


def near(line: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two lines record the same work, with losses that differ by rounding only."""
    same = all(line.get(k) == other.get(k) for k in ("kind", "step", "objective", "languages"))
    losses = [
        (line[k], other[k]) if k == "loss" else (math.log(line[k]), math.log(other[k]))
        for k in other
        if k == "loss" or k.endswith("_ppl")
    ]
    return same and all(abs(a - b) <= 1e-5 for a, b in losses)


def parted(run: Path, reference: Path) -> int | None:
    """The step at which other sentences were generated, as the number of tokens shows."""
    for line, other in zip(metrics_of(run), metrics_of(reference), strict=True):
        if line.get("tokens") != other.get("tokens"):
            assert other["objective"] == "bt", (line, other)
            return other["step"]
    return None


@pytest.mark.faults
@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("ranks", [(1, 2), (2, 1)], ids=["begun-alone", "begun-by-two"])
def test_another_number_of_ranks_changes_only_rounding(
    whole: Run, killed: Run, faults: Any, stage: int, ranks: tuple[int, int]
) -> None:
    """Alternately by one process of the torch engine and by two of DeepSpeed."""
    options = f"{TINY}{MEMORY}{ACROSS}{NO_BATCHNORM}--zero-stage {stage}"
    fault = "SIGKILL, gone on with by 1 process instead of 2, or 2 instead of 1"
    run = killed(options, kills(5, seed=stage), ranks, fault)
    for line, other in zip(metrics_of(run), metrics_of(whole(options)), strict=True):
        assert near(line, other), (line, other)
    for _ in range(5):
        faults.survive(fault)


@pytest.mark.faults
def test_another_number_of_ranks_translates_the_same(whole: Run, killed: Run, faults: Any) -> None:
    """As long as rounding makes no other word the most likely; if it does, the table says so."""
    options = f"{TINY}{TRANSLATION}{ACROSS}"
    fault = "SIGKILL in back-translation, gone on with by another number of processes"
    run, reference = killed(options, kills(5, seed=3), (1, 2), fault), whole(options)
    step = parted(run, reference)
    for line, other in zip(metrics_of(run), metrics_of(reference), strict=True):
        if step is None or other["step"] < step:
            assert near(line, other), (line, other)
    assert step is None or step > N_STEPS / 2, f"other sentences were generated at step {step}"
    lost = "nothing" if step is None else f"rounding made sentences part at step {step}"
    for _ in range(5):
        faults.survive(fault, lost)
