"""``xlm train --dry-run``: what it prints agrees with the run, and it leaves nothing behind."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from xlm_plugins.cli.main import main
from xlm_plugins.data.dataset.manifest import Manifest

COMMAND = (
    "train", "--objective=mlm", "--objective=tlm:en-fr@0.5", "--dim=16", "--n-layers=2",
    "--n-heads=2", "--batch-tokens=256", "--window=32", "--threads=1", "--steps=4",
    "--log-every=1", "--evaluate-every=2", "--out=run",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _parameters(printed: str) -> str:
    return re.search(r"parameters: .*", printed)[0]


def test_a_dry_run_writes_nothing_and_agrees_with_the_run(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*COMMAND, f"--data={tiny_data}"]
    before = sorted(tmp_path.rglob("*"))
    assert main([*command, "--dry-run"]) == 0
    out, dry = capsys.readouterr()
    assert out == ""
    assert sorted(tmp_path.rglob("*")) == before
    assert "evaluations: every 2 steps, and at the end" in dry

    assert main(command) == 0
    real = capsys.readouterr().err
    assert _parameters(dry) == _parameters(real)
    lines = map(json.loads, Path("run", "metrics.jsonl").read_text().splitlines())
    made = [f"{m['objective']}:{m['languages']}" for m in lines if m["kind"] == "train"]
    assert re.findall(r"^ +\d+  (\S+)$", dry, re.M) == made
    passes = re.findall(r"^ +(\d+\.\d\d)  (\S+) in (\d+) steps$", dry, re.M)
    assert {name: int(n) for _, name, n in passes if int(n)} == dict(Counter(made))
    assert "dry_run" not in Path("run", "config.toml").read_text()


def test_how_often_each_text_is_read(tiny_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, f"--data={tiny_data}", "--steps=2000", "--dry-run"]) == 0
    (found,) = re.findall(r"^ +(\S+)  mlm:en in (\S+) steps$", capsys.readouterr().err, re.M)
    passes, n_steps = (float(number.replace(",", "")) for number in found)
    stream = Manifest.load(tiny_data).stream("train", ("en",))
    tokens = stream.n_tokens + stream.n_sentences  # EOS follows each sentence
    assert passes == pytest.approx(256 * n_steps / tokens, abs=0.01)
    assert passes > 1


@pytest.mark.parametrize("mistake", ["--objective=tlm:en-xx", "--validation-metrics=_valid_no_ppl"])
def test_bad_settings_fail_as_in_the_run(
    tiny_data: Path, mistake: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*COMMAND, f"--data={tiny_data}", mistake]
    assert main([*command, "--dry-run"]) == 2
    dry = capsys.readouterr().err.splitlines()
    assert main(command) == 2
    assert dry[-1] == capsys.readouterr().err.splitlines()[-1]


def test_an_occupied_folder_is_refused(tiny_data: Path) -> None:
    Path("run").mkdir()
    Path("run", "mine.txt").touch()
    assert main([*COMMAND, f"--data={tiny_data}", "--dry-run"]) == 2


@pytest.mark.parametrize("seeds", [1, 2])
def test_fine_tuning_has_a_dry_run_too(
    tiny_run: Path, tmp_path: Path, seeds: int, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.en.tsv"
    file.write_text("label\ttext\n" + "even\tGod said\nodd\tthe king\n" * 8)
    files = [f"--classify.{split}={file}" for split in ("train", "valid", "test")]
    command = ["finetune", "classify", f"--from={tiny_run}", "--out=tuned", *files, "--steps=4"]
    before = sorted(tmp_path.rglob("*"))
    command += ["--warmup=0", "--threads=1", f"--seeds={seeds}"]
    assert main([*command, "--dry-run"]) == 0
    dry = capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
    assert len(re.findall(r"^ +\d+  \S+$", dry, re.M)) == 4
    assert "passes over the rows: 4.0" in dry
    if seeds == 1:
        assert main(command) == 0
        assert _parameters(dry) == _parameters(capsys.readouterr().err)
