"""``xlm tokenizer``: training from files, and text through pipes."""

from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path

import pytest

from xlm_plugins.cli.main import main

SENTENCES = (
    "the cat sat on the mat",
    "the dog sat on the log",
    "",
    "a cat and a dog are two animals",
    "two animals sat together near the warm stove",
    "in the evening the stove is warm and the animals are together",
)
TEXT = "\n".join(SENTENCES * 5)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "some.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def folder(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    out = tmp_path / "made" / "tokenizer"
    assert main(["tokenizer", "train", str(text), "--out", str(out), "--vocab-size", "300"]) == 0
    capsys.readouterr()
    return out


def pipe(monkeypatch: pytest.MonkeyPatch, content: bytes, *arguments: str) -> int:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    return main(["tokenizer", *arguments])


def test_text_to_ids_and_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["the cat", "", "a naïve dög 🐢", "the mat"] * 700  # several batches
    content = ("\n".join(lines) + "\n").encode()
    assert pipe(monkeypatch, content, "encode", str(folder), "--ids") == 0
    ids = capsys.readouterr().out
    assert len(ids.splitlines()) == len(lines)
    assert pipe(monkeypatch, ids.encode(), "decode", str(folder)) == 0
    assert capsys.readouterr().out.splitlines() == lines


def test_pieces_spell_the_text(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The last line has no line end; U+2028 is not one.
    content = "the cat\na\u2028dog".encode()
    assert pipe(monkeypatch, content, "encode", str(folder)) == 0
    out = capsys.readouterr().out.split("\n")
    assert [line.replace(" ", "") for line in out] == ["▁the▁cat", "▁a▁dog", ""]


def test_the_tokenizer_of_a_data_set_or_a_bundle_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pipe(monkeypatch, b"the cat\n", "encode", str(folder.parent)) == 0
    assert capsys.readouterr().out.startswith("▁")


def test_options_of_the_tokenizer_are_flags(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "bpe"
    arguments = ["tokenizer", "train", str(text), "--out", str(out), "--vocab-size", "300"]
    assert main([*arguments, "--sentencepiece.model", "bpe"]) == 0
    assert json.loads((out / "component.json").read_text())["name"] == "sentencepiece"
    assert main([*arguments[:-3], str(tmp_path / "x"), "--sentencepiece.model", "words"]) == 2


def test_several_files_and_archives_are_read(text: Path, tmp_path: Path) -> None:
    packed = tmp_path / "more.gz"
    packed.write_bytes(gzip.compress("ключ и замок\n".encode() * 30))
    out = tmp_path / "both"
    arguments = ["tokenizer", "train", str(text), str(packed), "--out", str(out)]
    assert main([*arguments, "--vocab-size", "310"]) == 0


def test_only_the_training_text_of_a_source_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "train.en.txt").write_text(TEXT)
    (source / "valid.en.txt").write_text("zebra\n" * 50)
    out = tmp_path / "out"
    arguments = ["tokenizer", "train", str(source), "--out", str(out), "--vocab-size", "300"]
    assert main(arguments) == 0
    assert "about 25 sentences" in capsys.readouterr().err


def told(capsys: pytest.CaptureFixture[str], status: int, *words: str) -> None:
    captured = capsys.readouterr()
    assert status == 2
    assert captured.out == ""
    for word in words:
        assert word in captured.err


def test_too_large_a_vocabulary_is_an_error_and_leaves_nothing(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "out"
    arguments = ["tokenizer", "train", str(text), "--out", str(out), "--vocab-size"]
    told(capsys, main([*arguments, "8000"]), "SentencePiece says", "--vocab-size ")
    assert list(out.parent.iterdir()) == []


def test_a_folder_in_use_is_left_alone(
    folder: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    told(capsys, main(["tokenizer", "train", str(text), "--out", str(folder)]), "already exists")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_errors_name_the_bad_input(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = ["--out", str(tmp_path / "x")]
    told(capsys, main(["tokenizer", "train", str(tmp_path / "no.txt"), *out]), "no.txt")
    (tmp_path / "latin.txt").write_bytes(b"fine\nna\xefve\n")
    told(capsys, main(["tokenizer", "train", str(tmp_path / "latin.txt"), *out]), "line 2")
    told(capsys, pipe(monkeypatch, b"na\xefve\n", "encode", str(folder)), "line 1", "UTF-8")
    told(capsys, pipe(monkeypatch, b"4 300\n", "decode", str(folder)), "'300'", "0 to 299")
    told(capsys, pipe(monkeypatch, b"cat\n", "decode", str(folder)), "'cat'")
    told(capsys, pipe(monkeypatch, b"", "encode", str(tmp_path / "x")), "does not exist")
    assert not (tmp_path / "x").exists()
