"""``xlm finetune`` from start to finish: what a run learns, writes and resumes from."""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from xlm_plugins.cli.main import main
from xlm_plugins.runs.find import find_bundle
from xlm_plugins.training.trainer import Trainer

SAVED_AND_STOPPED = 75
N_UPDATES = 48  # of the toy command
Command = Callable[..., list[str]]


def lines(run: Path, kind: str = "") -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what depends on the clock."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    clock = ("time", "tokens_per_second")
    return [
        {k: v for k, v in line.items() if k not in clock}
        for line in found
        if line["kind"] == kind or not kind
    ]


def results(run: Path) -> Any:
    return json.loads((run / "results.json").read_text())


def weights(reference: Path | str) -> dict[str, torch.Tensor]:
    return load_file(find_bundle(str(reference)) / "model.safetensors")


def test_a_toy_rule_is_learnt(toy_run: Path) -> None:
    assert results(toy_run)["test_en_classify_acc"] > 95
    assert lines(toy_run, "train")[-1]["step"] == N_UPDATES


def test_metrics_have_the_usual_names(toy_run: Path) -> None:
    found = results(toy_run)
    assert set(found) == {
        f"{split}_{title}classify_{metric}"
        for split in ("valid", "test")
        for title in ("en_", "fr_", "")
        for metric in ("acc", "macro_f1", "mcc")
    }
    for split in ("valid", "test"):
        both = [found[f"{split}_{language}_classify_acc"] for language in ("en", "fr")]
        assert found[f"{split}_classify_acc"] == pytest.approx(sum(both) / 2)


def test_predictions_are_those_that_were_measured(toy_run: Path, toy_files: Path) -> None:
    for language in ("en", "fr"):
        predicted = (toy_run / "predictions" / f"test.{language}.txt").read_text().splitlines()
        rows = (toy_files / f"test.{language}.tsv").read_text().splitlines()[1:]
        n_right = sum(row.startswith(f"{p}\t") for row, p in zip(rows, predicted, strict=True))
        accuracy = results(toy_run)[f"test_{language}_classify_acc"]
        assert 100 * n_right / len(rows) == pytest.approx(accuracy)


def test_the_best_model_is_selected_in_the_training_language(toy_run: Path) -> None:
    evaluations = lines(toy_run, "evaluation")
    assert [line["step"] for line in evaluations] == [12, 24, 36, 48]
    best = max(line["valid_en_classify_acc"] for line in evaluations)
    assert results(toy_run)["valid_en_classify_acc"] == best
    kept = [path.name for path in (toy_run / "best").iterdir() if path.is_dir()]
    assert kept == ["valid_en_classify_acc"]


def test_with_two_training_languages_the_mean_selects(
    toy_command: Command, toy_files: Path, tiny_run: Path, tmp_path: Path
) -> None:
    both, out = f"{toy_files}/train.en.tsv,fr={toy_files}/test.fr.tsv", tmp_path / "run"
    assert main(toy_command(tiny_run, out, "--steps=2", "--pool=mean", train=both)) == 0
    assert (out / "best" / "valid_classify_acc").is_dir()
    assert {line["languages"] for line in lines(out, "train")} == {"all"}


def test_a_run_leaves_nothing_half_written(toy_run: Path) -> None:
    # The hook that writes for TensorBoard is one of the plugins installed here.
    assert {path.name for path in toy_run.iterdir()} - {"tensorboard"} == {
        ".lock", "best", "checkpoints", "config.toml", "environment.json", "history.jsonl",
        "metrics.jsonl", "predictions", "results.json",
    }  # fmt: skip
    predictions = {f"test.{code}.{kind}" for code in ("en", "fr") for kind in ("txt", "csv")}
    assert {path.name for path in (toy_run / "predictions").iterdir()} == predictions
    assert [path.name for path in (toy_run / "checkpoints").iterdir()] == [f"step-{N_UPDATES}"]
    environment = json.loads((toy_run / "environment.json").read_text())
    assert environment["directory"] == os.getcwd()


def test_a_failing_evaluation_leaves_no_results(
    toy_command: Command,
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from xlm_classify.task import Classify

    def fail(self: Classify, part: object, predicted: object, folder: Path) -> None:
        (folder / "torn").write_text("half a line")
        raise OSError("no space left")

    command, out = toy_command(tiny_run, tmp_path / "run", "--steps=2"), tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Classify, "write", fail)
        assert main(command) != 0
    assert "no space left" in capsys.readouterr().err
    assert not (out / "results.json").exists()
    assert not (out / "predictions").exists()
    assert main(["finetune", "--resume", str(out)]) == 0  # measures, and trains no more
    assert results(out)
    assert len(list((out / "predictions").iterdir())) == 4
    assert not (out / ".predictions.partial").exists()


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str], int], None]:
    """Run a command that gets SIGTERM in the log line of an update."""

    def stopped(command: list[str], at: int) -> None:
        log = Trainer._log

        def log_and_stop(self: Trainer) -> None:
            log(self)
            if self.state.update == at:
                os.kill(os.getpid(), signal.SIGTERM)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "_log", log_and_stop)
            assert main(command) == SAVED_AND_STOPPED

    return stopped


# Update 24 is the end of an epoch, with an evaluation; update 27 stands inside one.
@pytest.mark.parametrize("at", [24, 27])
def test_a_stopped_run_resumes_bitwise(
    toy_run: Path,
    toy_command: Command,
    tiny_run: Path,
    tmp_path: Path,
    stopped: Callable[[list[str], int], None],
    capsys: pytest.CaptureFixture[str],
    at: int,
) -> None:
    out = tmp_path / "run"
    command = toy_command(tiny_run, out)
    stopped(command, at)
    assert f"xlm finetune --resume {out}" in capsys.readouterr().err
    assert [path.name for path in (out / "checkpoints").iterdir()] == [f"step-{at}"]
    assert not (out / "results.json").exists()
    again = ["finetune", "--resume", str(out)] if at == 24 else [*command, "--resume=auto"]
    assert main(again) == 0
    assert lines(out) == lines(toy_run)
    assert results(out) == results(toy_run)
    mine, theirs = weights(f"{out}@last"), weights(f"{toy_run}@last")
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_longer_training_is_evaluated_again(
    toy_command: Command, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    command = toy_command(tiny_run, out, "--resume=auto", "--validation-metrics=")
    assert main([*command, "--steps=1"]) == 0
    before = results(out)
    assert main(command) == 0
    assert results(out) != before
    assert lines(out, "train")[-1]["step"] == N_UPDATES


def test_its_own_settings_repeat_a_run(toy_run: Path, tmp_path: Path) -> None:
    config, again = str(toy_run / "config.toml"), tmp_path / "again"
    assert Path(tomllib.loads(Path(config).read_text())["finetune"]["from"]).is_absolute()
    assert main(["finetune", "--config", config, "--out", str(again)]) == 0
    assert lines(again) == lines(toy_run)
    assert results(again) == results(toy_run)
    for name in ("test.en.txt", "test.fr.txt"):
        paths = [run / "predictions" / name for run in (again, toy_run)]
        assert paths[0].read_bytes() == paths[1].read_bytes()
    assert (again / "config.toml").read_bytes() == (toy_run / "config.toml").read_bytes()


def test_a_model_named_with_at_gets_an_absolute_path(
    toy_command: Command, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_run.parent)
    base = Path(f"{tiny_run.name}@step-9")
    assert main(toy_command(base, tmp_path / "run", "--steps=1")) == 0
    config = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert config["finetune"]["from"] == f"{tiny_run}@step-9"


def test_several_seeds_give_mean_and_deviation(
    toy_command: Command,
    tiny_run: Path,
    toy_run: Path,
    tmp_path: Path,
    stopped: Callable[[list[str], int], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "seeds"
    command = toy_command(tiny_run, out, "--seeds=3")
    stopped(command, 27)  # in the first seed's run
    assert {path.name for path in out.iterdir()} == {"config.toml", "seed-1"}
    assert main(["finetune", "--resume", str(out)]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-1] == str(out)
    assert "mean and deviation over 3 seeds" in shown.err
    of_seeds = [results(out / f"seed-{seed}") for seed in (1, 2, 3)]
    assert of_seeds[0] == results(toy_run)
    whole = results(out)
    assert whole["n_seeds"] == 3
    assert any(whole["deviation"].values())
    for name in of_seeds[0]:
        values = [found[name] for found in of_seeds]
        assert whole["mean"][name] == pytest.approx(statistics.mean(values))
        assert whole["deviation"][name] == pytest.approx(statistics.stdev(values))
    third = tomllib.loads((out / "seed-3" / "config.toml").read_text())["finetune"]
    assert (third["seed"], third["seeds"]) == (3, 1)
    assert main(["predict", str(out)]) == 2
    assert "seed-1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--seeds=2", "--batch-sentences=2", "--accumulation=3"], "cannot be divided"),
        (["--seeds=2", "--validation-metrics=valid_de_classify_acc"], "is not measured"),
        (["--layers=2:1"], "not a range of the model's layers"),
        (["--layers=_9:_1"], "not a range of the model's layers"),
        (["--max-length=600"], "the model has 512 positions"),
        (["--class-weights=balanced", "--classify.kind=regression"], "is not a number"),
        (["--from=nowhere"], "there is no run or bundle at nowhere"),
        (["--from="], "there is no model to fine-tune"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(
    toy_command: Command,
    tiny_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    told: str,
) -> None:
    out = tmp_path / "run"
    assert main(toy_command(tiny_run, out, *flags)) == 2
    assert told in capsys.readouterr().err
    assert not out.exists()


def test_folders_that_hold_something_else_are_refused(
    toy_command: Command, tiny_run: Path, toy_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for flags, told in (
        (["--seeds=2"], "holds a run of one seed"),
        (["--seeds=2", "--resume=auto"], "holds a run of one seed"),
        ([], "already holds a run"),
    ):
        assert main(toy_command(tiny_run, toy_run, *flags)) == 2
        assert told in capsys.readouterr().err
    assert main(["finetune", "classify", "--resume", "nowhere"]) == 2
    assert "holds no run" in capsys.readouterr().err


def test_a_run_is_not_resumed_with_other_files(
    toy_files: Path, toy_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(toy_run, tmp_path / "run")
    other = f"--classify.train={toy_files}/test.en.tsv"
    assert main(["finetune", "--resume", str(run), other]) == 2
    assert "the task's files are not those" in capsys.readouterr().err


def test_evaluate_says_where_the_metrics_are(
    toy_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(toy_run)]) == 2
    told = capsys.readouterr().err
    assert "was fine-tuned on the task classify" in told
    assert "results.json" in told
