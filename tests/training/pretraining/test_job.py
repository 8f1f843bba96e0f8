"""Runs from start to finish on a little real text."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xlm_plugins import DataError, OptionError, RunError
from xlm_plugins.cli.main import main
from xlm_plugins.config.settings import Settings
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.training.job import Outcome
from xlm_plugins.training.pretraining.job import train
from xlm_plugins.training.trainer import Trainer

SAVED_AND_STOPPED = 75

# As much of `xlm` as a test of a kill needs: the process kills itself when it writes the log line
# of a given update, so that the test waits for nothing and never comes too late.
KILLED_AT = """
import os, signal, sys
from xlm_plugins.cli.main import main
from xlm_plugins.training.trainer import Trainer
log = Trainer._log
def log_and_die(self):
    log(self)
    if self.state.update == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
Trainer._log = log_and_die
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return Plugins.discover()


@pytest.fixture
def run(
    plugins: Plugins, tiny_settings: Callable[..., Settings], tmp_path: Path
) -> Callable[..., Outcome]:
    """Train into ``tmp_path / name`` and return the outcome."""

    def run(name: str, **options: Any) -> Outcome:
        if "resume" not in options:
            options = {"out": str(tmp_path / name), **options}
        return train(tiny_settings(**options), plugins)

    return run


def _metrics(path: Path, kind: str = "") -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, or of one kind, without what depends on the clock."""
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    clock = ("time", "tokens_per_second")
    return [
        {k: v for k, v in line.items() if k not in clock}
        for line in lines
        if line["kind"] == kind or not kind
    ]


def test_a_run_leaves_a_complete_folder(tiny_run: Path) -> None:
    checkpoints = tiny_run / "checkpoints"
    assert {p.name for p in checkpoints.iterdir()} == {f"step-{n}" for n in (9, 10, 11, 12)}
    assert (tiny_run / "best" / "valid_mlm_ppl" / "model.safetensors").is_file()
    for name in ("config.toml", "environment.json"):
        assert (tiny_run / name).stat().st_size
    made_with = json.loads((checkpoints / "step-12" / "plugins.json").read_text())
    assert made_with["layer/pkm"] == "xlm-pkm 0.1.0"


def test_a_run_may_start_from_word_vectors(
    run: Callable[..., Outcome],
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """They come after --init, config.toml has their absolute path, and --resume does not read
    them again."""
    monkeypatch.chdir(tmp_path)
    rows = [" ".join([word, *["0.1"] * 16]) for word in ("the", "of", "and")]
    Path("words.vec").write_text("\n".join(rows) + "\n", encoding="utf-8")
    started = run("started", steps=1, init=str(tiny_run), init_embeddings="words.vec")
    told = capfd.readouterr().err
    assert 0 < told.index("started from") < told.index("word vectors of words.vec: 3 of 400 rows")
    config = tomllib.loads((started.path / "config.toml").read_text(encoding="utf-8"))
    assert config["train"]["init-embeddings"] == str(tmp_path / "words.vec")
    Path("words.vec").unlink()
    resumed = run("", steps=2, resume=str(started.path), init_embeddings="words.vec")
    assert resumed.update == 2
    with pytest.raises(DataError, match=r"words.vec cannot be read: No such file"):
        run("none", steps=1, init_embeddings="words.vec")
    assert not (tmp_path / "none").exists()


def test_metrics_have_the_usual_names(tiny_run: Path) -> None:
    evaluations = _metrics(tiny_run, "evaluation")
    assert [line["step"] for line in evaluations] == [0, 4, 8, 12]
    for name in ("valid_en_mlm_ppl", "valid_mlm_acc", "valid_en-fr_tlm_ppl",
                 "valid_en-fr_tlm_alone_ppl", "valid_enc.1_pkm_usage"):  # fmt: skip
        assert name in evaluations[-1]
    means = [evaluations[-1][f"valid_{language}_mlm_ppl"] for language in ("en", "fr")]
    assert evaluations[-1]["valid_mlm_ppl"] == pytest.approx(sum(means) / 2)
    assert evaluations[-1]["valid_mlm_ppl"] < evaluations[0]["valid_mlm_ppl"]
    trains = _metrics(tiny_run, "train")
    assert {line["step"] for line in trains} == {3, 6, 9, 12}
    assert sum(line["updates"] for line in trains) == 12
    assert {line["objective"] for line in trains} == {"mlm", "tlm"}


def test_one_seed_gives_one_run(run: Callable[..., Outcome], tiny_run: Path) -> None:
    assert _metrics(run("again").path) == _metrics(tiny_run)


def test_another_seed_gives_another_run(run: Callable[..., Outcome], tiny_run: Path) -> None:
    other = run("other", seed=2, evaluate_every=0, save_every=0)
    assert _metrics(other.path, "train") != _metrics(tiny_run, "train")


def test_evaluations_and_checkpoints_change_nothing(
    run: Callable[..., Outcome], tiny_run: Path
) -> None:
    bare = run("bare", evaluate_every=0, save_every=0)
    assert _metrics(bare.path, "train") == _metrics(tiny_run, "train")
    assert _metrics(bare.path)[-1] == _metrics(tiny_run)[-1]


def test_loader_processes_change_nothing(run: Callable[..., Outcome]) -> None:
    few = {"steps": 3, "layer": [], "evaluate_every": 0, "save_every": 0}
    assert _metrics(run("a", **few).path) == _metrics(run("b", **few, workers=1).path)


# Update 9 has a log line; update 10 stands in the middle of one.
@pytest.mark.parametrize("at", [9, 10])
def test_a_resumed_run_is_the_uninterrupted_one(
    run: Callable[..., Outcome], tiny_run: Path, tmp_path: Path, at: int
) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(tiny_run, cut)
    for late in range(at + 1, 13):
        shutil.rmtree(cut / "checkpoints" / f"step-{late}")
    assert run("", resume=str(cut)).update == 12
    assert _metrics(cut) == _metrics(tiny_run)


def test_a_killed_run_resumes_bitwise(tiny_run: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    command = ["train", "--config", str(tiny_run / "config.toml"), "--out", str(killed)]
    command += ["--resume", "auto", "--save-every", "5"]
    process = subprocess.run(
        [sys.executable, "-c", KILLED_AT, "9", *command], capture_output=True, timeout=120
    )
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    assert [p.name for p in (killed / "checkpoints").iterdir()] == ["step-5"]
    assert _metrics(killed)[-1]["step"] == 9
    assert main(command) == 0
    assert _metrics(killed) == _metrics(tiny_run)


@pytest.mark.slow
def test_a_run_killed_from_outside_resumes(run: Callable[..., Outcome], tmp_path: Path) -> None:
    """The same, killed whatever it is doing."""
    whole = run("whole", steps=400, save_every=20, evaluate_every=100)
    config, killed = whole.path / "config.toml", tmp_path / "killed"
    command = [sys.executable, "-m", "xlm_plugins", "train", "--config", config, "--out", killed]
    command += ["--resume", "auto"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _wait_for(lambda: list(killed.glob("checkpoints/step-*")), process)
    process.kill()
    process.wait()
    assert len(_metrics(killed)) < len(_metrics(whole.path))
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert _metrics(killed) == _metrics(whole.path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_saves_and_stops(
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    log = Trainer._log

    def log_and_signal(self: Trainer) -> None:
        log(self)
        os.kill(os.getpid(), number)

    monkeypatch.setattr(Trainer, "_log", log_and_signal)
    out = tmp_path / "stopped"
    config = str(tiny_run / "config.toml")
    command = ["train", "--config", config, "--out", str(out), "--save-every", "0"]
    assert main([*command, "--evaluate-every", "0"]) == SAVED_AND_STOPPED
    told = capsys.readouterr().err
    assert f"{number.name}: saved and stopped after 3 steps" in told
    assert f"xlm train --resume {out}" in told
    assert [p.name for p in (out / "checkpoints").iterdir()] == ["step-3"]


def test_the_clock_can_end_a_run(run: Callable[..., Outcome]) -> None:
    outcome = run("run", minutes=0.02, steps=None, evaluate_every=0, save_every=0)
    assert outcome.reason == "minutes"
    lines = _metrics(outcome.path)
    rates = [line["learning_rate"] for line in lines if line["kind"] == "train"]
    assert rates[-1] < max(rates) / 2  # the linear schedule falls with the clock
    assert lines[-1]["kind"] == "evaluation"


def test_a_run_that_ends_before_its_first_update_leaves_a_model(
    run: Callable[..., Outcome],
) -> None:
    outcome = run("run", minutes=1e-6)
    assert (outcome.reason, outcome.update) == ("minutes", 0)
    assert [p.name for p in (outcome.path / "checkpoints").iterdir()] == ["step-0"]


def test_the_stopping_criterion_ends_a_run(run: Callable[..., Outcome]) -> None:
    # Accuracy rises while a model learns: where lower is better it soon stops improving.
    outcome = run(
        "run", steps=400, evaluate_every=1, save_every=0, stopping_criterion="_valid_mlm_acc,2"
    )
    assert outcome.reason == "criterion"
    assert outcome.update < 400


def test_a_folder_that_holds_a_run_is_refused(run: Callable[..., Outcome], tiny_run: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in tiny_run.rglob("*")}
    with pytest.raises(RunError, match="already holds a run"):
        run("", out=str(tiny_run))
    assert {p: p.stat().st_mtime_ns for p in tiny_run.rglob("*")} == before


def test_a_resume_with_another_model_is_refused(
    run: Callable[..., Outcome], tiny_run: Path
) -> None:
    with pytest.raises(RunError, match="objectives are not those"):
        run("", resume=str(tiny_run), objective=["mlm"])


def test_nothing_is_written_when_the_settings_do_not_fit(
    run: Callable[..., Outcome], tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match="--window of at most"):
        run("run", window=513)
    with pytest.raises(OptionError, match="0 to 1"):
        run("run", layer=["pkm:9"])
    with pytest.raises(RunError, match="lanes"):
        run("run", accumulation=3)
    assert not (tmp_path / "run").exists()


def test_init_copies_what_fits(
    run: Callable[..., Outcome], tiny_run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    few = {"steps": 1, "evaluate_every": 0, "save_every": 0}
    assert run("second", **few, layer=[], init=[f"{tiny_run}@last"]).update == 1
    report = capfd.readouterr().err
    assert "tensors copied" in report
    assert "new, as initialised" in report  # the FFN in the memory's place
    assert "left out" in report  # the memory


def _wait_for(ready: Callable[[], Any], process: subprocess.Popen[Any]) -> None:
    """Wait until something is there, within a time limit."""
    for _ in range(600):
        if ready():
            return
        assert process.poll() is None, "the run ended before it was stopped"
        time.sleep(0.1)
    raise TimeoutError
