"""``xlm evaluate``: a table or one JSON object."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from xlm_plugins.cli.main import main


def _evaluate(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, float]:
    capsys.readouterr()
    assert main(["evaluate", *map(str, arguments), "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line)


def test_json_has_the_metrics_by_their_names(
    tiny_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = _evaluate(capsys, tiny_run)
    for name in ("test_en_mlm_ppl", "test_fr_mlm_acc", "test_mlm_ppl", "test_en-fr_tlm_ppl"):
        assert name in metrics
    assert 1 < metrics["test_mlm_ppl"] < 400


def test_the_table_has_the_same_numbers(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = _evaluate(capsys, tiny_run)
    assert main(["evaluate", str(tiny_run)]) == 0
    told = capsys.readouterr()
    assert told.err == ""  # how far it is shows on a terminal only
    rows = [line.split() for line in told.out.splitlines()]
    assert rows[0] == ["objective", "languages", "perplexity", "accuracy"]
    french = [f"{metrics[f'test_fr_mlm_{measure}']:,.1f}" for measure in ("ppl", "acc")]
    assert ["mlm", "fr", *french] in rows
    alone = [f"{metrics[f'test_en-fr_tlm_alone_{measure}']:,.1f}" for measure in ("ppl", "acc")]
    assert ["tlm", "alone", "en-fr", *alone] in rows


def test_a_run_is_its_best_model_and_others_can_be_named(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best, last = _evaluate(capsys, tiny_run), _evaluate(capsys, f"{tiny_run}@last")
    first = _evaluate(capsys, f"{tiny_run}@step-9")
    assert first != last
    assert _evaluate(capsys, f"{tiny_run}@valid_mlm_ppl") == best
    # A copy without a best model falls back to the last one.
    shutil.copytree(tiny_run / "checkpoints", tmp_path / "run" / "checkpoints")
    shutil.copy(tiny_run / "config.toml", tmp_path / "run")
    assert _evaluate(capsys, tmp_path / "run") == last


def test_another_split_and_other_data_of_the_same_tokenizer(
    tiny_run: Path,
    tiny_source: Path,
    tiny_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    valid = _evaluate(capsys, tiny_run, "--split", "valid")
    assert all(name.startswith("valid_") for name in valid)
    assert _evaluate(capsys, tiny_run, "--split", "valid", "--data", tiny_data) == valid
    source = tmp_path / "text"
    source.mkdir()
    shutil.copy(tiny_source / "test.fr.txt", source / "test.fr.txt")
    command = ["prepare", str(source), str(tmp_path / "data"), "--workers", "1"]
    assert main([*command, "--tokenizer-from", str(tiny_run)]) == 0
    french = _evaluate(capsys, tiny_run, "--data", tmp_path / "data")
    whole = _evaluate(capsys, tiny_run)
    assert french["test_fr_mlm_ppl"] == pytest.approx(whole["test_fr_mlm_ppl"])
    assert "test_en_mlm_ppl" not in french


def test_a_bundle_stands_alone(
    tiny_run: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A copied bundle needs --data, and is measured with the default batch sizes."""
    bundle = shutil.copytree(tiny_run / "checkpoints" / "step-12", tmp_path / "bundle")
    metrics = _evaluate(capsys, bundle, "--data", tiny_data)
    assert metrics.keys() == _evaluate(capsys, tiny_run).keys()


def test_missing_models_and_text(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, told in (
        ([str(tiny_run), "--split", "dev"], "--split with one of test, train, valid"),
        ([f"{tiny_run}@step-3"], "expected: last, step-10"),
        ([str(tmp_path / "nowhere")], "there is no run or bundle"),
        ([str(tmp_path)], "no checkpoint"),
    ):
        assert main(["evaluate", *arguments]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert told in err
