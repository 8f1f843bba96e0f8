"""Runs from the command line, start to finish, on a little real text."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xlm_plugins import OptionError, RunError
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.training.settings import Settings, resolve
from xlm_plugins.training.start import Outcome, train

MODEL = {"dim": 16, "n_layers": 2, "n_heads": 2}
PKM = {"n_keys": 8, "knn": 4, "heads": 2, "k_dim": 8}


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return Plugins.discover()


def _settings(plugins: Plugins, data: Path, **options: Any) -> Settings:
    flags = {
        "model": MODEL,
        "optimizer": {"lr": 1e-2, "warmup": 2},
        "pkm": PKM,
        "train": {
            "objective": ["mlm", "tlm:en-fr"],
            "layer": ["pkm"],
            "data": str(data),
            "steps": 12,
            "batch_tokens": 256,
            "window": 32,
            "evaluate_every": 4,
            "save_every": 4,
            "log_every": 3,
            "threads": 1,
            **options,
        },
    }
    if not flags["train"]["layer"]:
        del flags["pkm"]
    return resolve({}, flags, plugins)


@pytest.fixture
def run(plugins: Plugins, tiny_data: Path, tmp_path: Path) -> Callable[..., Outcome]:
    """Train into ``tmp_path / name`` and return the outcome."""

    def run(name: str, **options: Any) -> Outcome:
        out = {} if options.get("resume") else {"out": str(tmp_path / name)}
        return train(_settings(plugins, tiny_data, **out, **options), plugins)

    return run


def _metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what the clock decides."""
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in m.items() if k not in ("time", "tokens_per_second")} for m in lines]


def test_a_run_leaves_a_complete_folder(run: Callable[..., Outcome]) -> None:
    outcome = run("run")
    assert (outcome.reason, outcome.update) == ("done", 12)
    path = outcome.path
    assert sorted(p.name for p in (path / "checkpoints").iterdir()) == ["step-12", "step-8"]
    assert (path / "best" / "valid_mlm_ppl" / "model.safetensors").is_file()
    for name in ("config.toml", "environment.json", "plots/curves.png"):
        assert (path / name).stat().st_size
    made_with = json.loads((path / "checkpoints/step-12/plugins.json").read_text())
    assert made_with["layer/pkm"] == "xlm-pkm 0.1.0"


def test_metrics_have_the_names_of_the_field(run: Callable[..., Outcome]) -> None:
    lines = _metrics(run("run").path)
    evaluations = [line for line in lines if line["kind"] == "evaluation"]
    assert [line["step"] for line in evaluations] == [0, 4, 8, 12]
    for name in ("valid_en_mlm_ppl", "valid_mlm_acc", "valid_en-fr_tlm_ppl",
                 "valid_en-fr_tlm_alone_ppl", "valid_enc.1_pkm_usage"):  # fmt: skip
        assert name in evaluations[-1]
    means = [evaluations[-1][f"valid_{language}_mlm_ppl"] for language in ("en", "fr")]
    assert evaluations[-1]["valid_mlm_ppl"] == pytest.approx(sum(means) / 2)
    assert evaluations[-1]["valid_mlm_ppl"] < evaluations[0]["valid_mlm_ppl"]
    trains = [line for line in lines if line["kind"] == "train"]
    assert {line["step"] for line in trains} == {3, 6, 9, 12}
    assert sum(line["updates"] for line in trains) == 12
    assert {line["objective"] for line in trains} == {"mlm", "tlm"}


def test_one_seed_gives_one_run_and_another_seed_another(run: Callable[..., Outcome]) -> None:
    first, second, other = run("a"), run("b"), run("c", seed=2)
    assert _metrics(first.path) == _metrics(second.path)
    assert _metrics(first.path) != _metrics(other.path)


def test_loader_processes_change_nothing(run: Callable[..., Outcome]) -> None:
    alone = run("a", steps=4, layer=[])
    assert _metrics(alone.path) == _metrics(run("b", steps=4, layer=[], workers=1).path)


@pytest.mark.parametrize("save_every", [2, 5])  # 5 falls between two log lines
def test_a_resumed_run_is_the_uninterrupted_one(
    run: Callable[..., Outcome], tmp_path: Path, save_every: int
) -> None:
    whole = run("whole", save_every=save_every)
    cut = run("cut", save_every=save_every, keep=9)
    for late in (cut.path / "checkpoints").iterdir():
        if int(late.name.removeprefix("step-")) > 5:
            shutil.rmtree(late)
    resumed = run("cut", save_every=save_every, resume=str(cut.path))
    assert resumed.update == 12
    assert _metrics(resumed.path) == _metrics(whole.path)


def test_a_killed_run_goes_on_to_the_last_digit(
    run: Callable[..., Outcome], tiny_data: Path, tmp_path: Path
) -> None:
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
    run: Callable[..., Outcome], tmp_path: Path, number: signal.Signals
) -> None:
    template = run("template", steps=4)
    out = tmp_path / "stopped"
    process = subprocess.Popen(
        [sys.executable, "-m", "xlm_plugins", "train", "--config", template.path / "config.toml",
         "--out", out, "--steps", "100000", "--save-every", "0"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    _wait_for(lambda: (out / "metrics.jsonl").is_file() and len(_metrics(out)) > 3, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75
    assert f"xlm train --resume {out}" in errors
    assert len(list((out / "checkpoints").glob("step-*"))) == 1


def test_the_clock_can_end_a_run(run: Callable[..., Outcome]) -> None:
    outcome = run("run", minutes=0.02, steps=10**6, evaluate_every=0)
    assert outcome.reason == "minutes"
    lines = _metrics(outcome.path)
    rates = [line["learning_rate"] for line in lines if line["kind"] == "train"]
    assert rates[-1] < max(rates) / 2  # the linear schedule falls with the clock
    assert lines[-1]["kind"] == "evaluation"


def test_the_stopping_criterion_ends_a_run(run: Callable[..., Outcome]) -> None:
    # Accuracy in percent cannot exceed 100, so with "lower is better" it soon stops falling.
    outcome = run("run", steps=400, evaluate_every=1, stopping_criterion="_valid_mlm_acc,2")
    assert outcome.reason == "criterion"
    assert outcome.update < 400


def test_a_folder_that_holds_a_run_is_refused(run: Callable[..., Outcome]) -> None:
    path = run("run", steps=2).path
    before = {p: p.stat().st_mtime_ns for p in path.rglob("*")}
    with pytest.raises(RunError, match="already holds a run"):
        run("run", steps=2)
    assert {p: p.stat().st_mtime_ns for p in path.rglob("*")} == before


def test_a_resume_with_another_model_is_refused(run: Callable[..., Outcome]) -> None:
    path = run("run", steps=4).path
    with pytest.raises(RunError, match="objectives are not those"):
        run("run", resume=str(path), objective=["mlm"], layer=["pkm"])


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


def test_init_copies_what_fits(run: Callable[..., Outcome], capfd: Any) -> None:
    first = run("first", steps=4, layer=[])
    second = run("second", steps=1, layer=["pkm"], init=f"{first.path}@last")
    assert second.update == 1
    report = capfd.readouterr().err
    assert "tensors copied" in report
    assert "left out" in report  # the FFN that the memory replaces


def _wait_for(ready: Callable[[], Any], process: subprocess.Popen[Any]) -> None:
    """Wait until something is there; a test's own time limit."""
    for _ in range(600):
        if ready():
            return
        assert process.poll() is None, "the run ended before it was stopped"
        time.sleep(0.1)
    raise TimeoutError
