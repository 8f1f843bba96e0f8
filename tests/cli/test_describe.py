"""`xlm describe`: whatever a folder holds, without the plugins that made it."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from xlm_plugins.cli.main import main
from xlm_plugins.config.origins import recorded_origins


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")


def described(path: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    assert main(["describe", str(path)]) == 0
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_a_run(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = described(tiny_run, capsys)
    assert found[:3] == [
        f"{tiny_run}: a run",
        "status finished, 12 of 12 steps",
        "trains mlm, tlm:en-fr + pkm",
    ]
    (best,) = (line for line in found if line.startswith("best valid_mlm_ppl "))
    assert re.fullmatch(r"best valid_mlm_ppl [\d,]+\.\d\d at step \d+", best)
    assert "model encoder of 2 layers, 16 wide" in found
    assert "languages en, fr" in found
    assert "objectives xlm-mlm/mlm: en, fr" in found
    assert "layers xlm-pkm/pkm at enc.1" in found
    assert any(line.startswith("starts new at step 0 20") for line in found)
    assert any(line.startswith("made with xlm-plugins ") for line in found)
    assert f"next xlm plot {tiny_run}" in found
    assert f"xlm export safetensors {tiny_run} OUT" in found
    assert not any("--resume" in line for line in found)


def test_a_run_to_resume_that_was_changed(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    assert main(["train", "--resume", str(run), "--steps=13", "--lr=0.5"]) == 0
    config = run / "config.toml"
    config.write_text(config.read_text().replace("steps = 13", "steps = 20"))
    found = described(run, capsys)
    assert "status stopped, 13 of 20 steps" in found
    (resumed,) = (line for line in found if line.startswith("resumed at step 12"))
    assert resumed.endswith("changed optimizer.lr, train.steps")
    assert f"next xlm train --resume {run}" in found


def test_where_settings_were_given(
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, file = tmp_path / "run", tmp_path / "given.toml"
    file.write_text("[train]\nbatch_tokens = 128\n[optimizer]\nlr = 0.5\neps = 1e-8\n")
    shape = ["--dim=16", "--n-layers=2", "--n-heads=2", "--objective=mlm"]
    monkeypatch.setenv("XLM_TRAIN_CLIP", "0.5")
    train = ["train", *shape, f"--data={tiny_data}", f"--out={run}", f"--config={file}"]
    monkeypatch.setattr(sys, "argv", ["/somewhere/xlm", *train])
    assert main([*train, "--steps=1", "--lr=0.01"]) == 0
    found = described(run, capsys)
    assert "given model.dim 16 by --dim" in found  # the first, hence with the title
    for line in (
        "optimizer.lr 0.01 by --lr",
        "optimizer.clip 0.5 by XLM_TRAIN_CLIP",
        f"train.batch-tokens 128 by {file}",
    ):
        assert line in found
    assert not any("optimizer.eps" in line for line in found)  # what it is by default
    monkeypatch.setenv("COLUMNS", "80")
    continued = [line for line in described(run, capsys) if line.endswith(" \\")]
    assert continued[0].startswith("command xlm train --dim=16 ")
    monkeypatch.setenv("COLUMNS", "1000")

    monkeypatch.delenv("XLM_TRAIN_CLIP")
    assert main(["train", f"--resume={run}", "--steps=2"]) == 0
    found = described(run, capsys)
    for line in ("optimizer.clip 0.5 by XLM_TRAIN_CLIP", "train.steps 2 by --steps"):
        assert line in found

    child = tmp_path / "child"
    given = ["--objective=mlm", f"--data={tiny_data}", f"--init={run}", "--steps=1"]
    assert main(["train", *given, f"--out={child}"]) == 0
    assert "given model.dim 16 by --init" in described(child, capsys)


def test_an_environment_that_is_no_object(tiny_run: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_run, tmp_path / "run")
    (tmp_path / "run" / "environment.json").write_text("[]")
    assert recorded_origins(tmp_path / "run") == {}


def test_damaged_lines_hide_nothing_else(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], refused: Callable[..., str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    for name in ("history.jsonl", "metrics.jsonl"):
        with (run / name).open("a") as file:
            file.write("{oops\n")
    found = described(run, capsys)
    assert any(line.startswith("best valid_mlm_ppl ") for line in found)
    (told,) = (line for line in found if line.startswith("starts damaged: "))
    assert "history.jsonl, line 2" in told
    assert f"next xlm plot {run}" in found
    refused(["plot", run], "metrics.jsonl, line ", "is damaged: '{oops'", "remove that line")


def test_a_model_whose_plugins_are_gone(
    tiny_run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from xlm_plugins.core.plugins import Plugins

    bundle = tiny_run / "best" / "valid_mlm_ppl"
    usual = described(bundle, capsys)
    monkeypatch.setenv("XLM_DISABLE_PLUGINS", "xlm-mlm,xlm-tlm,xlm-pkm,xlm-sentencepiece")
    assert "pkm" not in [layer.name for layer in Plugins.discover().registry.of("layer")]
    assert described(bundle, capsys) == usual
    assert usual[0] == f"{bundle}: a model"
    (line,) = (line for line in usual if line.startswith("parameters"))
    size = (bundle / "model.safetensors").stat().st_size
    assert line.endswith(f" in {size:,} bytes")
    assert 10_000 < int(line.split()[1].replace(",", "")) < size / 4


def test_a_data_set_and_a_tokenizer(tiny_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = described(tiny_data, capsys)
    assert found[0] == f"{tiny_data}: a data set"
    assert any(line.startswith("text train en: 1,000 sentences, ") for line in found)
    assert any(line.startswith("train en-fr: 1,000 sentences, ") for line in found)
    assert f"xlm train --objective NAME --data {tiny_data}" in found
    found = described(tiny_data / "tokenizer", capsys)
    assert found[1].startswith("kind sentencepiece (xlm-sentencepiece ")


def test_exported_weights(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "safetensors", str(tiny_run), str(tmp_path / "out")]) == 0
    found = described(tmp_path / "out", capsys)
    assert found[0] == f"{tmp_path / 'out'}: weights exported for other programs"
    assert "layers xlm-pkm/pkm at enc.1" in found


def test_an_exported_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = {"model_type": "xlm-roberta", "architectures": ["XLMRobertaForMaskedLM"]}
    (tmp_path / "config.json").write_text(json.dumps(tree))
    found = described(tmp_path, capsys)
    assert found == [
        f"{tmp_path}: a model of another library",
        "kind xlm-roberta of transformers, XLMRobertaForMaskedLM",
        "files config.json",
        f"next xlm import hf {tmp_path} OUT",
    ]


def test_what_is_nothing_to_describe(refused: Callable[..., str], tmp_path: Path) -> None:
    refused(["describe", tmp_path], "is nothing that can be described", "expected: the folder of")
    refused(["describe", "nowhere"], "nowhere does not exist", "hint: ")
    (tmp_path / "config.json").write_text("{}")
    refused(["describe", tmp_path], "config.json describes no model")


@pytest.mark.parametrize(
    ("name", "content"),
    [("model.json", "{}"), ("model.json", "[]"), ("model.safetensors", "short")],
)
def test_a_damaged_model_is_refused(
    name: str, content: str, tiny_run: Path, refused: Callable[..., str], tmp_path: Path
) -> None:
    shutil.copytree(tiny_run / "best" / "valid_mlm_ppl", tmp_path / "bundle")
    (tmp_path / "bundle" / name).write_text(content)
    refused(["describe", tmp_path / "bundle"], "damaged")


def test_a_run_whose_environment_is_damaged(
    tiny_run: Path, refused: Callable[..., str], tmp_path: Path
) -> None:
    shutil.copytree(tiny_run, tmp_path / "run")
    (tmp_path / "run" / "environment.json").write_text("{}")
    refused(["describe", tmp_path / "run"], "a run that is damaged: KeyError: 'command'")
