"""What cannot be translated is told in plain words, with status 2 and nothing half-written."""

from __future__ import annotations

import io
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from xlm_plugins.cli.main import main

Refused = Callable[..., str]
TRAIN = shlex.split(
    "train --dim 16 --n-layers 1 --n-heads 2 --threads 1 --batch-tokens 256 --max-positions 40 "
    "--max-length 30 --window 32 --steps 2 --evaluate-every 0 --save-every 0"
)


@pytest.fixture(scope="module")
def english_data(
    tiny_source: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The English text of `tiny_data` alone."""
    return _part_of(tiny_source, tiny_data, ["en"], tmp_path_factory.mktemp("english"))


@pytest.fixture(scope="module")
def pairless_data(
    tiny_source: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """`tiny_data` without its parallel text, so that no translation has a reference."""
    return _part_of(tiny_source, tiny_data, ["en", "fr"], tmp_path_factory.mktemp("pairless"))


def _part_of(source: Path, data: Path, languages: list[str], folder: Path) -> Path:
    (folder / "text").mkdir()
    for split in ("train", "valid"):
        for language in languages:
            name = f"{split}.{language}.txt"
            shutil.copyfile(source / name, folder / "text" / name)
    command = ["prepare", folder / "text", folder / "data", "--tokenizer-from", data]
    assert main([*map(str, command), "--workers", "1"]) == 0
    return folder / "data"


@pytest.fixture(scope="module")
def translating_run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has seen two batches of en-fr, with 40 positions.  For reading only."""
    out = tmp_path_factory.mktemp("translating") / "run"
    command = [*TRAIN, "--objective", "mt:en-fr", "--translate-sentences", "0"]
    assert main([*command, "--data", str(tiny_data), "--out", str(out)]) == 0
    return out


@pytest.mark.parametrize(
    ("objective", "facts"),
    [
        ("bt", ["in en alone", "two languages or more", "xlm data"]),
        ("bt:en-fr-en", ["by way of fr", "two languages or more", "add text in fr"]),
        ("bt:en-en-en", ["from one language to another and back", "as in en-fr-en"]),
        ("bt:en-fr", ["bt:en-fr names 2", "a loop en-fr-en"]),
        ("mt", ["nothing to train it on", "parallel text", "xlm data"]),
    ],
)
def test_translating_with_one_language(
    english_data: Path, refused: Refused, objective: str, facts: list[str]
) -> None:
    command = [*TRAIN, "--objective", objective, "--data", english_data, "--out", "new"]
    refused(command, *facts)


@pytest.mark.parametrize(
    ("objective", "facts"),
    [
        ("bt:en-xx-en", ["by way of xx", "one of fr", "add text in xx"]),
        ("mt:en-xx", ["no train.en-xx", "train.en-fr"]),
    ],
)
def test_translating_to_an_unknown_language(
    tiny_data: Path, refused: Refused, objective: str, facts: list[str]
) -> None:
    command = [*TRAIN, "--objective", objective, "--data", tiny_data, "--out", "new"]
    refused(command, *facts)


def test_back_translating_by_a_beam_that_no_vocabulary_fills(
    tiny_data: Path, refused: Refused
) -> None:
    command = [*TRAIN, "--objective", "bt", "--data", tiny_data, "--out", "new"]
    refused([*command, "--bt.beam", "194"], "--bt.beam 194", "at most 193")


def test_evaluating_by_a_beam_that_no_vocabulary_fills(tiny_data: Path, refused: Refused) -> None:
    """Before any training, which would be lost."""
    command = [*TRAIN, "--objective", "mt:en-fr", "--data", tiny_data, "--out", "new"]
    refused([*command, "--generation.beam", "194"], "a beam of 194", "at most 193")


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        ("--from fr --to en", ["from fr to en", "from en to fr", "--objective mt:fr-en"]),
        ("--from en --to xx", ["language 'xx'", "one of en, fr"]),
        ("--from xx --to fr", ["language 'xx'", "one of en, fr"]),
        ("--from en --to en", ["both languages are 'en'"]),
        ("--from en --to fr --beam 194", ["a beam of 194", "at most 193"]),
    ],
)
def test_a_translation_that_cannot_be(
    translating_run: Path, refused: Refused, arguments: str, facts: list[str]
) -> None:
    refused(["translate", translating_run, *arguments.split()], *facts)


def test_a_line_longer_than_the_model_reads(
    translating_run: Path,
    refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = f"And he went.\n\n{'And he went. ' * 30}\n".encode()
    command = ["translate", str(translating_run), "--from", "en", "--to", "fr"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    refused([*command, "--strict"], "standard input, line 3", "at most 38", "leave --strict out")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 3
    assert "1 of 3 lines were cut to 38 tokens" in err


def test_bleu_without_references(
    pairless_data: Path, translating_run: Path, refused: Refused
) -> None:
    evaluate = ["evaluate", translating_run, "--data", pairless_data, "--split", "valid"]
    refused(evaluate, "'valid'", "mt:en-fr", "but valid.en, valid.fr")
    command = [*TRAIN, "--objective", "bt", "--data", pairless_data, "--out", "new"]
    for option in (
        "--validation-metrics=valid_en-fr_bt_bleu",
        "--stopping-criterion=valid_en-fr_bt_bleu,3",
    ):
        told = refused([*command, option], "valid_en-fr_bt_bleu", "valid_en-fr-en_bt_bleu")
        assert "BLEU and chrF need references" in told
