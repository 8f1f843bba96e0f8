"""Addresses: what a URL says never reaches a shell, in any option, and passwords are not shown."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from xlm_plugins.cli.main import main

COMMANDS = """
train --objective mlm --data URL
train --objective mlm --data DATA --data-cache URL --init URL
train --objective mlm --data DATA --init encoder=URL
train --objective mlm --data DATA --init-embeddings URL
train --objective mlm --data DATA --resume URL
train --objective mlm --data URL --out URL
train --objective mlm --data DATA --steps 1 --deepspeed-config URL
train --config URL
finetune URL --init URL
finetune xnli --xnli.data URL --init RUN
finetune --config URL
evaluate URL
evaluate RUN --data URL
evaluate RUN --data DATA --split valid --hypotheses URL --sentences 1
fill-mask URL text
predict URL
translate URL --from en --to fr
embed URL
score URL
generate URL
import hf URL URL
import xlm URL URL --codes URL --vocab URL
export hf URL URL
export sentence-transformers URL URL
export safetensors RUN URL
prepare URL OUT
prepare TEXT OUT --tokenizer-from URL
prepare TEXT URL --workers 1
data URL
data URL --verify
tokenizer encode URL
tokenizer decode URL
tokenizer train URL --out URL
plot URL
plot RUN --out URL
plugins new name --kind layer --out URL
adapter apply URL URL URL
adapter save URL URL
retrieval URL URL URL --from en --to fr
retrieval RUN URL URL --from en --to fr --plot URL
""".strip().splitlines()
URLS = ("s3://b/a;touch touched", "pipe:touch touched", "https:;touch touched")


@pytest.fixture
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GOPEN_REWRITE", "s3://=pipe:cat ")
    monkeypatch.setenv("WDS_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("_nowhere")
@pytest.mark.parametrize("command", COMMANDS)
def test_no_address_reaches_a_shell(
    command: str, tiny_data: Path, tiny_run: Path, tiny_source: Path
) -> None:
    known = {"DATA": tiny_data, "RUN": tiny_run, "TEXT": tiny_source, "OUT": "out"}
    words = [str(known.get(word, word)) for word in shlex.split(command)]
    for url in URLS:
        main([word.replace("URL", url) for word in words])
        assert not list(Path().rglob("touched"))
        assert not Path("touched").exists()


@pytest.mark.usefixtures("_nowhere")
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_shows_or_keeps_a_password(
    command: str, tiny_data: Path, tiny_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {"DATA": tiny_data, "RUN": tiny_run, "TEXT": "none", "OUT": "out"}
    words = [str(known.get(word, word)) for word in shlex.split(command)]
    main([word.replace("URL", "http://me:secret@127.0.0.1:1/x") for word in words])
    out, err = capsys.readouterr()
    assert "secret" not in out + err
    kept = [path for path in Path().rglob("*") if path.is_file()]
    assert not [path for path in kept if b"secret" in path.read_bytes()]


def test_no_password_of_a_settings_file_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_data: Path
) -> None:
    config = tmp_path / "config.toml"
    for key in ("data", "init", "init_embeddings", "resume"):
        value = f"{key} = 'http://me:secret@h/x'"
        other = "" if key == "data" else f"data = '{tiny_data}'"
        config.write_text(f"[train]\nobjective = ['mlm']\n{value}\n{other}\n")
        assert main(["train", "--config", str(config)]) == 2
    assert "secret" not in "".join(capsys.readouterr())
