"""Completion in a shell, as bash asks for it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from xlm_plugins.cli.main import main


def completed(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> list:
    """What bash may put in place of the last word."""
    monkeypatch.setenv("_XLM_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 0
    return [found.partition(",")[2] for found in capsys.readouterr().out.split()]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("xlm fine", ["finetune"]),
        ("xlm train --objective t", ["tlm"]),
        ("xlm train --layer ", ["adapter", "pkm"]),
        ("xlm train --schedule c", ["cosine", "constant"]),
        ("xlm train --objective tlm --tlm.mask", ["--tlm.mask-prob"]),
        ("xlm train --objective nothing --warm", ["--warmup"]),
        ("xlm train --init ru", ["ru"]),
        ("xlm completion z", ["zsh"]),
        ("xlm finetune x", ["xnli"]),
        ("xlm prepare a b --tokenizer f", ["fastbpe"]),
        ("xlm help pre", ["predict", "prepare"]),
        ("xlm help export s", ["safetensors", "sentence-transformers"]),
    ],
)
def test_commands_options_and_values(
    line: str,
    expected: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    assert completed(line, monkeypatch, capsys) == expected


def test_runs_and_their_languages(
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(tiny_run)
    (tmp_path / "runs" / "empty").mkdir()
    for line in (
        "xlm embed ru", "xlm embed ", "xlm train --resume ru", "xlm finetune --from runs/m",
        "xlm plot run", "xlm export hf r",
    ):  # fmt: skip
        assert completed(line, monkeypatch, capsys) == ["runs/mine"], line
    assert completed(f"xlm train --init {tmp_path}/ru", monkeypatch, capsys) == [
        f"{tmp_path}/runs/mine"
    ]
    assert completed("xlm embed runs/mine --language ", monkeypatch, capsys) == ["en", "fr"]
    assert completed("xlm embed nowhere --language ", monkeypatch, capsys) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script(shell: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert f"_XLM_COMPLETE={shell}_complete" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True, timeout=20)


def test_completing_loads_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_XLM_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "xlm train --objective tlm --tlm.mask")
    monkeypatch.setenv("COMP_CWORD", "4")
    code = (
        "import sys, xlm_plugins.cli.main as main\n"
        "try:\n"
        "    main.main([])\n"
        "finally:\n"
        "    print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, check=True, timeout=60, text=True, capture_output=True).stdout
    assert out.splitlines() == ["plain,--tlm.mask-prob", "False"]
