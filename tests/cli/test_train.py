"""``xlm train``: what it prints, where it writes, and how a run is repeated and resumed."""

from __future__ import annotations

import errno
import json
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

from xlm_plugins.cli.main import main
from xlm_plugins.training.pretraining import plan as setup

SMALL = ("--dim=16", "--n-layers=2", "--n-heads=2", "--batch-tokens=256", "--window=32")
SHORT = (*SMALL, "--threads=1", "--steps=3", "--log-every=1", "--evaluate-every=0")
PKM = ("--layer=pkm", "--pkm.n-keys=8", "--pkm.knn=4")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _losses(run: Path) -> list[tuple[Any, ...]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [(m["step"], m["languages"], m["loss"]) for m in lines if m["kind"] == "train"]


def test_standard_output_has_only_the_run(
    tiny_data: Path, with_curves: None, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--objective", "mlm", "--objective=tlm:en-fr@0.5", *PKM, *SHORT]
    assert main([*command, "--data", str(tiny_data)]) == 0
    out, err = capsys.readouterr()
    assert out == "runs/mlm-tlm-pkm-1\n"
    assert Path(out.strip(), "plots", "curves.png").is_file()
    assert f"data: {tiny_data} (en, fr; vocabulary of 400 tokens)" in err
    assert "objectives: mlm:en,fr, tlm:en-fr; layers: pkm at enc.1" in err
    n_parameters = int(re.search(r"parameters: ([\d,]+)", err)[1].replace(",", ""))
    assert 10_000 < n_parameters < 100_000
    assert re.search(r"step 3/3 .* tokens/s  lr \S+  .* left\s+mean loss (mlm|tlm) \d", err)
    assert re.search(r"^evaluation at step 3.*\n(.*\n)*mlm +en +[\d,]+\.\d", err, re.M)


def test_a_run_is_finished_even_if_its_curves_cannot_be_plotted(
    tiny_data: Path,
    with_curves: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from matplotlib.figure import Figure

    def savefig(figure: Figure, path: Path, **options: Any) -> None:
        path.write_bytes(b"half a")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", savefig)
    command = ["train", "--objective", "clm:en", *SHORT, "--data", str(tiny_data), "--out", "run"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert out == "run\n"
    assert "could not be drawn: [Errno 28] No space left on device; " in err
    assert "to draw them later: xlm plot run\n" in err
    assert list(Path("run", "plots").iterdir()) == []
    assert main(["plot", "run"]) == 2
    assert "No space left" in capsys.readouterr().err


def test_every_run_gets_its_own_name(tiny_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "--objective", "clm:en", *SHORT, "--steps=1", "--data", str(tiny_data)]
    names = []
    for _ in range(2):
        assert main(command) == 0
        names.append(capsys.readouterr().out)
    assert names == ["runs/clm-1\n", "runs/clm-2\n"]


def test_the_embedded_corpus_is_the_default_data(
    tiny_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`xlm train --objective tlm --layer pkm`, but for a smaller size."""
    monkeypatch.setattr(setup, "embedded_data_set", lambda plugins: tiny_data)
    assert main(["train", "--objective", "tlm", *PKM, *SHORT]) == 0
    assert "objectives: tlm:en-fr,fr-en" in capsys.readouterr().err


def test_the_written_settings_repeat_the_run(tiny_data: Path) -> None:
    command = ["train", "--objective", "tlm", *PKM, *SHORT, "--data", str(tiny_data)]
    assert main([*command, "--seed", "5", "--tlm.mask-prob", "0.3", "--out", "first"]) == 0
    written = tomllib.loads(Path("first", "config.toml").read_text())
    assert (written["train"]["seed"], written["tlm"]["mask-prob"]) == (5, 0.3)
    assert main(["train", "--config", "first/config.toml", "--out", "again"]) == 0
    assert _losses(Path("again")) == _losses(Path("first"))
    assert tomllib.loads(Path("again", "config.toml").read_text()) == written
    assert main(["train", "--config", "first/config.toml", "--out", "x", "--tlm.mask-prob=.1"]) == 0
    assert _losses(Path("x")) != _losses(Path("first"))


def test_resuming_uses_the_settings_of_the_run(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    shutil.rmtree(run / "checkpoints" / "step-12")
    assert main(["train", "--resume", str(run)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{run}\n"
    assert f"resuming from {run / 'checkpoints' / 'step-11'} after 11 steps" in err
    assert _losses(run) == _losses(tiny_run)


def test_resuming_a_finished_run_changes_nothing(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    assert main(["train", "--resume", str(run), "--lr", "0.5"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{run}\n"
    assert f"{run} is finished, nothing is changed: all 12 steps are done" in err
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_the_curves_of_a_run_that_was_killed_before_they_were_drawn(
    tiny_run: Path, tmp_path: Path, with_curves: None
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    shutil.rmtree(run / "plots", ignore_errors=True)
    assert main(["train", "--resume", str(run)]) == 0
    assert (run / "plots" / "curves.png").is_file()


def _history(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


def test_the_folder_tells_what_a_resumed_run_changed(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, config = tmp_path / "run", tmp_path / "run" / "config.toml"
    shutil.copytree(tiny_run, run)
    assert main(["train", "--resume", str(run), "--lr", "0.5", "--steps", "14"]) == 0
    told = capsys.readouterr().err
    assert "lr 0.5 (was 0.01), steps 14 (was 12) from step 12 on" in told
    assert "the linear schedule spans the whole run" in told
    tree = tomllib.loads(config.read_text())
    assert (tree["optimizer"]["lr"], tree["train"]["steps"]) == (0.5, 14)
    new, resumed = _history(run)
    assert (new["start"], new["step"], new["changed"]) == ("new", 0, {})
    assert new["settings"] == tomllib.loads((tiny_run / "config.toml").read_text())
    assert (resumed["start"], resumed["step"]) == ("resumed", 12)
    assert resumed["changed"] == {"optimizer.lr": [0.01, 0.5], "train.steps": [12, 14]}
    assert resumed["time"] >= new["time"]
    assert resumed["environment"] == json.loads((run / "environment.json").read_text())

    out = str(tmp_path / "again")
    assert main(["train", "--config", str(config), "--out", out, "--steps=1"]) == 0
    told = capsys.readouterr().err
    assert "not repeated are the earlier ones" in told
    assert "until step 12: lr 0.01, steps 12" in told


def test_a_resumption_that_fails_leaves_what_the_folder_said(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    names = ("config.toml", "environment.json", "history.jsonl")
    before = [(run / name).read_bytes() for name in names]
    command = ["train", "--resume", str(run), "--steps", "14", "--lr", "0.5"]
    assert main([*command, "--validation-metrics", "nonsense"]) == 2
    assert [(run / name).read_bytes() for name in names] == before


def test_what_is_trained_again_with_the_old_settings_counts_as_unchanged(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    shutil.rmtree(run / "checkpoints" / "step-12")
    assert main(["train", "--resume", str(run), "--lr", "0.5"]) == 0
    shutil.rmtree(run / "checkpoints" / "step-12")
    assert main(["train", "--resume", str(run), "--lr", "0.01"]) == 0
    assert [line["changed"] for line in _history(run)] == [{}, {"optimizer.lr": [0.01, 0.5]}, {}]
    assert (run / "config.toml").read_bytes() == (tiny_run / "config.toml").read_bytes()
    assert _losses(run) == _losses(tiny_run)
    capsys.readouterr()
    again = str(tmp_path / "again")
    assert main(["train", f"--config={run}/config.toml", f"--out={again}", "--steps=1"]) == 0
    assert "not repeated" not in capsys.readouterr().err


def test_a_run_can_be_extended(tiny_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    assert main(["train", "--resume", str(run), "--steps", "15", "--schedule", "constant"]) == 0
    assert _losses(run)[: len(_losses(tiny_run))] == _losses(tiny_run)
    assert _losses(run)[-1][0] == 15


def test_auto_starts_and_resumes_with_the_same_command(
    tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--objective", "mlm:en", *SHORT, "--data", str(tiny_data)]
    command += ["--out", "run", "--resume", "auto", "--save-every", "2"]
    assert main(command) == 0
    whole = _losses(Path("run"))
    shutil.rmtree("run/checkpoints/step-3")
    capsys.readouterr()
    assert main(command) == 0
    assert "after 2 steps" in capsys.readouterr().err
    assert _losses(Path("run")) == whole


def test_a_damaged_checkpoint_is_reported_and_skipped(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    shutil.rmtree(run / "checkpoints" / "step-12")
    weights = run / "checkpoints" / "step-11" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert main(["train", "--resume", str(run)]) == 0
    told = capsys.readouterr().err
    assert "skipping the damaged checkpoint step-11" in told
    assert "after 10 steps" in told
    assert _losses(run) == _losses(tiny_run)


def test_only_parameters_that_match_a_pattern_are_trained(
    tiny_data: Path, tmp_path: Path, tiny_run: Path
) -> None:
    from safetensors.torch import load_file

    command = ["train", "--config", str(tiny_run / "config.toml"), "--init", f"{tiny_run}@last"]
    command += ["--out", "run", "--steps", "3", "--save-every", "0", "--evaluate-every", "0"]
    assert main([*command, "--train-only", "*.feed_forward.*"]) == 0
    before = load_file(tiny_run / "checkpoints" / "step-12" / "model.safetensors")
    after = load_file("run/checkpoints/step-3/model.safetensors")
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed
    assert all(".feed_forward." in name for name in changed)
