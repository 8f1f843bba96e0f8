"""Runs that are asked to stop: when, how soon, and what is there to go on with."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from xlm_plugins.cli.main import main
from xlm_plugins.runs.folder import RunFolder
from xlm_plugins.testing.runs import metrics_of
from xlm_plugins.training import run_job
from xlm_plugins.training.engines.engine import Engine
from xlm_plugins.training.pretraining.translations import TranslationEvaluation
from xlm_plugins.training.trainer import Trainer

STOPPED = 75


@pytest.fixture
def command(tiny_run: Path, tmp_path: Path) -> list[str]:
    """Repeats `tiny_run`, whose evaluations come every 4 updates of 12."""
    config = tiny_run / "config.toml"
    return ["train", "--config", str(config), "--out", str(tmp_path / "run"), "--resume", "auto"]


def after(
    monkeypatch: pytest.MonkeyPatch, where: Any, name: str, number: int, call: int = 1
) -> None:
    """Send a signal to this process in some call of a method, once."""
    method, calls = getattr(where, name), []

    def signalled(*arguments: Any, **options: Any) -> Any:
        calls.append(name)
        if len(calls) == call:
            os.kill(os.getpid(), number)
        return method(*arguments, **options)

    monkeypatch.setattr(where, name, signalled)


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def assert_goes_on(command: list[str], run: Path, whole: Path) -> None:
    assert main(command) == 0
    assert metrics_of(run) == metrics_of(whole)


@pytest.mark.parametrize(
    ("where", "name", "call", "last", "number"),
    [
        # An update comes to its end, and no other begins.  (The first call is the rehearsal.)
        (Engine, "forward_backward", 7, "step-6", signal.SIGTERM),
        (Engine, "evaluate", 1, "step-0", signal.SIGUSR1),  # before training
        (RunFolder, "save_checkpoint", 3, "step-3", signal.SIGTERM),
        (run_job, "create_engine", 1, "step-0", signal.SIGTERM),  # nothing is there to save yet
    ],
    ids=["update", "evaluation", "save", "start"],
)
def test_it_ends_within_one_update_wherever_it_is(
    command: list[str],
    tiny_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    where: Any,
    name: str,
    call: int,
    last: str,
    number: int,
) -> None:
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patched:
        after(patched, where, name, number, call)
        assert main(command) == STOPPED
    told = capsys.readouterr().err
    assert f"{signal.Signals(number).name}: saved and stopped after {last[5:]} steps" in told
    assert f"to resume: xlm train --resume {run}" in told
    assert last in checkpoints(run)
    assert max(int(name[5:]) for name in checkpoints(run)) == int(last[5:])
    assert_goes_on(command, run, tiny_run)


@pytest.mark.parametrize(("update", "before"), [(8, [0, 4]), (12, [0, 4, 8])])
def test_an_evaluation_in_the_middle_or_at_the_end_is_left_and_made_up_for(
    command: list[str], tiny_run: Path, tmp_path: Path, update: int, before: list[int]
) -> None:
    run, evaluate = tmp_path / "run", Trainer._evaluate
    with pytest.MonkeyPatch.context() as patched:

        def signalled(self: Trainer) -> None:
            if self.state.update == update:
                os.kill(os.getpid(), signal.SIGTERM)
            evaluate(self)

        patched.setattr(Trainer, "_evaluate", signalled)
        assert main(command) == STOPPED
    measured = [line["step"] for line in metrics_of(run, "evaluation")]
    assert measured == before
    assert_goes_on(command, run, tiny_run)


def test_translating_held_out_text_is_left_too(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    after(monkeypatch, TranslationEvaluation, "_translate", signal.SIGTERM)
    command = ["train", "--objective=mt:en-fr", f"--data={tiny_data}", f"--out={run}"]
    sizes = ["--dim=16", "--n-layers=1", "--n-heads=2", "--batch-tokens=256", "--max-length=20"]
    steps = ["--steps=2", "--translate-sentences=3", "--threads=1"]
    assert main([*command, *sizes, *steps]) == STOPPED
    assert [line["kind"] for line in metrics_of(run)] == ["left_out"]
    assert checkpoints(run) == ["step-0"]


def test_before_there_is_anything_to_save_ctrl_c_stops_at_once(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after(monkeypatch, run_job, "create_engine", signal.SIGINT)
    assert main(command) == 130
    assert not (tmp_path / "run").exists()


def test_ctrl_c_saves_and_a_second_one_stops_at_once(
    command: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        after(patched, Engine, "forward_backward", signal.SIGINT, 4)
        assert main(command) == STOPPED
    assert "saving after this step; press Ctrl-C again" in capfd.readouterr().err
    with pytest.MonkeyPatch.context() as patched:
        after(patched, Engine, "forward_backward", signal.SIGINT, 2)
        after(patched, RunFolder, "save_checkpoint", signal.SIGINT)
        assert main(command) == 130
    assert checkpoints(tmp_path / "run")[-1] == "step-3"


@pytest.mark.parametrize(
    ("number", "job", "told"),
    [
        (signal.SIGUSR1, "81", "scontrol requeue 81: the job resumes"),
        (signal.SIGTERM, "81", ""),  # of `scancel`: nobody wants it back
        (signal.SIGUSR1, "82", "scontrol requeue 82 failed: no such job"),
        (signal.SIGUSR1, "", "no SLURM job"),
    ],
)
def test_slurm_s_warning_puts_the_job_back_into_the_queue(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    job: str,
    told: str,
) -> None:
    stub, called = tmp_path / "scontrol", tmp_path / "called"
    found = f"ls {tmp_path}/run/checkpoints"
    stub.write_text(
        f'#!/bin/sh\necho "$@" > {called}; {found} >> {called}\n'
        '[ "$2" = 81 ] || { echo no such job >&2; exit 1; }\n'
    )
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    if job:
        monkeypatch.setenv("SLURM_JOB_ID", job)
    after(monkeypatch, Engine, "forward_backward", number, 2)
    assert main([*command, "--evaluate-every=0"]) == STOPPED
    assert ("scontrol" in capsys.readouterr().err) == ("scontrol" in told)
    if told.startswith("scontrol"):
        assert called.read_text() == f"requeue {job}\nstep-1\n"  # saved before
    else:
        assert not called.exists()
