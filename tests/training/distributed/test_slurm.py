"""SLURM: node lists, and requeueing a job."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xlm_plugins.core.errors import RunError
from xlm_plugins.training.distributed import slurm


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n1", ["n1"]),
        ("n1,n2", ["n1", "n2"]),
        ("node[01-04,7],login", ["node01", "node02", "node03", "node04", "node7", "login"]),
        ("a[9-11]", ["a9", "a10", "a11"]),
        ("r[1-2]n[0,3]-ib", ["r1n0-ib", "r1n3-ib", "r2n0-ib", "r2n3-ib"]),
        ("gpu-a.cluster,[1-2]x", ["gpu-a.cluster", "1x", "2x"]),
    ],
)
def test_a_node_list_is_expanded(text: str, expected: list[str]) -> None:
    assert slurm.hosts(text) == expected


@pytest.mark.parametrize("text", ["", "n[1-", "n[a-b]", "n1,,n2", "n1,", "n]1", "n[]"])
def test_other_texts_are_not_node_lists(text: str) -> None:
    with pytest.raises(RunError, match="not a list of hosts") as error:
        slurm.hosts(text)
    assert "MASTER_ADDR" in error.value.remedy


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stub that records its arguments; the file ``then`` says what else it does."""
    stub = tmp_path / "scontrol"
    stub.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/called\n. {tmp_path}/then\n')
    stub.chmod(0o755)
    (tmp_path / "then").write_text("")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def test_a_job_is_requeued(scontrol: Path) -> None:
    assert slurm.requeue({"SLURM_JOB_ID": "81"}).startswith("scontrol requeue 81: ")
    assert (scontrol / "called").read_text() == "requeue 81\n"


def test_a_failing_scontrol_is_reported(scontrol: Path) -> None:
    (scontrol / "then").write_text("echo not permitted >&2; exit 1")
    told = slurm.requeue({"SLURM_JOB_ID": "81"})
    assert told == "scontrol requeue 81 failed: not permitted; submit the job again"


def test_a_missing_scontrol_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "scontrol requeue 81 failed" in slurm.requeue({"SLURM_JOB_ID": "81"})
    assert "no SLURM job" in slurm.requeue({})
