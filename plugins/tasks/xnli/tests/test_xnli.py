"""XNLI: files in the official format, with invented sentences: reading, metrics, training."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score
from xlm_xnli import XnliOptions, xlm_tasks
from xlm_xnli.task import Xnli

from xlm_plugins import DataError, LabelledTexts, OptionError
from xlm_plugins.cli.main import main
from xlm_plugins.testing import check_task

COLUMNS = [
    "language", "gold_label", "sentence1_binary_parse", "sentence2_binary_parse",
    "sentence1_parse", "sentence2_parse", "sentence1", "sentence2", "promptID", "pairID", "genre",
    "label1", "label2", "label3", "label4", "label5", "sentence1_tokenized",
    "sentence2_tokenized", "match",
]  # fmt: skip
PAIRS = {
    "en": [("The dog sleeps.", "An animal rests."), ('He said "no".', "He agreed.")],
    "fr": [("Le chien dort.", "Un animal se repose."), ("Il a dit « non ».", "Il a consenti.")],
    "sw": [("Mbwa analala.", "Mnyama anapumzika."), ('Alisema "hapana".', "Alikubali.")],
}
LABELS = ("entailment", "contradiction", "neutral", "-")


def write(file: Path, rows: list[list[str]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return file


def judged_row(language: str, number: int) -> list[str]:
    first, second = PAIRS[language][number % 2]
    label = LABELS[number % 4]
    parses = ["", "", "", ""]
    votes = [label, label, "neutral", "neutral", label]
    last = [first.lower(), second.lower(), "True"]
    return [language, label, *parses, first, second, "7", str(number), "fiction", *votes, *last]


def training_rows(language: str, n_rows: int = 6) -> list[list[str]]:
    labels = ("neutral", "contradictory", "entailment")
    rows = [[*PAIRS[language][i % 2], labels[i % 3]] for i in range(n_rows)]
    return [["premise", "hypo", "label"], *rows]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """XNLI-1.0 and XNLI-MT-1.0 side by side, with eight rows per language and set."""
    root = tmp_path / "XNLI"
    for name, n_rows in (("dev", 4), ("test", 8)):
        rows = [judged_row(language, i) for i in range(n_rows) for language in PAIRS]
        write(root / "XNLI-1.0" / f"xnli.{name}.tsv", [COLUMNS, *rows])
    for language in PAIRS:
        write(trained(root, language), training_rows(language))
    return root


def trained(root: Path, language: str) -> Path:
    return root / "XNLI-MT-1.0" / "multinli" / f"multinli.train.{language}.tsv"


def test_the_contract(data: Path) -> None:
    check_task("xnli", data=str(data))


def parts(folder: Path, **options: tuple[str, ...]) -> dict[tuple[str, str], LabelledTexts]:
    found = Xnli(XnliOptions(data=str(folder), **options)).read().parts
    return {(part.split, part.language): part for part in found}


def test_zero_shot_trains_in_english_and_tests_in_all_languages(data: Path) -> None:
    found = parts(data)
    assert list(found) == [
        ("train", "en"),
        *((split, language) for split in ("valid", "test") for language in PAIRS),
    ]
    train = found["train", "en"]
    assert train.file == trained(data, "en")
    assert train.texts[0][:2] == ("The dog sleeps.", 'He said "no".')
    assert train.texts[1][:2] == ("An animal rests.", "He agreed.")
    assert train.labels == ("neutral", "contradiction", "entailment") * 2
    assert train.lines == tuple(range(2, 8))


def test_a_row_without_an_agreed_label_is_left_out(data: Path) -> None:
    test = parts(data)["test", "fr"]
    assert test.labels == ("entailment", "contradiction", "neutral") * 2
    assert test.texts[0] == tuple(PAIRS["fr"][i % 2][0] for i in (0, 1, 2, 4, 5, 6))
    assert test.lines == tuple(3 + 3 * i for i in (0, 1, 2, 4, 5, 6))
    assert test.file == data / "XNLI-1.0" / "xnli.test.tsv"


def test_classes_have_the_numbers_of_the_published_models(data: Path) -> None:
    task_data = Xnli(XnliOptions(data=str(data))).read()
    assert task_data.classes == ("contradiction", "neutral", "entailment")
    assert [targets.tolist() for targets in task_data.targets if targets is not None][:2] == [
        [1, 0, 2, 1, 0, 2],
        [2, 0, 1],
    ]


def test_languages_are_chosen(data: Path) -> None:
    found = parts(data, languages=("sw", "en"), train_languages=("fr", "en"))
    assert list(found) == [
        ("train", "fr"), ("train", "en"),
        ("valid", "sw"), ("valid", "en"), ("test", "sw"), ("test", "en"),
    ]  # fmt: skip
    assert found["train", "fr"].texts[0][0] == "Le chien dort."
    trained_in_all = [key for key in parts(data, train_languages=("all",)) if key[0] == "train"]
    assert trained_in_all == [("train", "en"), ("train", "fr"), ("train", "sw")]


def test_options_are_lists_on_the_command_line() -> None:
    (component,) = xlm_tasks()
    options = component.options_from({"languages": "en,fr", "train-languages": "all"})
    assert options == XnliOptions(languages=("en", "fr"), train_languages=("all",))


@pytest.mark.parametrize("named", ["XNLI-1.0", "XNLI-MT-1.0"])
def test_either_folder_leads_to_the_other(data: Path, named: str) -> None:
    assert parts(data / named).keys() == parts(data).keys()


def test_files_are_found_in_one_flat_folder(data: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in list(data.rglob("*.tsv")):
        file.rename(flat / file.name)
    assert {part.file.parent for part in parts(flat).values()} == {flat}


def test_accuracy_is_scikit_learns(data: Path) -> None:
    rng = np.random.default_rng(0)
    targets, predicted = rng.integers(3, size=(2, 500))
    task = Xnli(XnliOptions(data=str(data)))
    assert tuple(task.measure(targets, predicted)) == task.metrics
    expected = 100 * accuracy_score(targets, predicted)
    assert task.measure(targets, predicted)["acc"] == pytest.approx(expected)


def refusal(folder: Path | None, **options: tuple[str, ...]) -> str:
    with pytest.raises((DataError, OptionError)) as refused:
        Xnli(XnliOptions(data=folder and str(folder), **options)).read()
    return str(refused.value)


def test_what_is_missing_is_named(data: Path, tmp_path: Path) -> None:
    assert "--xnli.data FOLDER" in refusal(None)
    assert f"there is no folder {tmp_path / 'nowhere'}" in refusal(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    told = refusal(tmp_path / "empty")
    assert f"{tmp_path / 'empty'}: no multinli.train.LANGUAGE.tsv in there" in told
    assert "XNLI-1.0/xnli.dev.tsv" in told
    (data / "XNLI-1.0" / "xnli.test.tsv").unlink()
    assert f"{data}: no xnli.test.tsv in there" in refusal(data)


def test_a_language_without_files_is_refused(data: Path) -> None:
    told = refusal(data, languages=("en", "de"))
    assert "xnli.dev.tsv has nothing in 'de'\nexpected: some of en, fr, sw" in told
    told = refusal(data, train_languages=("de",))
    assert "no multinli.train.de.tsv in there" in told
    assert "some of en, fr, sw" in told


def test_a_missing_column_is_named(data: Path) -> None:
    write(trained(data, "en"), [["premise", "hypothesis", "label"], ["a", "b", "neutral"]])
    told = refusal(data)
    assert "has no column 'hypo'\nexpected: one of premise, hypothesis, label" in told
    write(data / "XNLI-1.0" / "xnli.dev.tsv", [COLUMNS[1:], judged_row("en", 0)[1:]])
    write(trained(data, "en"), training_rows("en"))
    assert "xnli.dev.tsv has no column 'language'" in refusal(data)


def test_an_unknown_label_is_reported_with_file_and_line(data: Path) -> None:
    file = write(trained(data, "en"), [*training_rows("en", 2), ["a", "b", "maybe"]])
    assert f"{file}, line 4: the label 'maybe'" in refusal(data)


def test_a_file_without_rows_is_refused(data: Path) -> None:
    write(trained(data, "fr"), training_rows("fr", 0))
    assert "multinli.train.fr.tsv has no rows" in refusal(data, train_languages=("fr",))
    write(data / "XNLI-1.0" / "xnli.dev.tsv", [COLUMNS, judged_row("en", 3)])
    assert "xnli.dev.tsv has no rows with a label" in refusal(data)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A very short run: MLM in the three languages, on shuffled words of the pairs."""
    folder = tmp_path_factory.mktemp("xnli")
    (folder / "text").mkdir()
    for language, pairs in PAIRS.items():
        rng = random.Random(language)
        words = " ".join(text for pair in pairs for text in pair).split()
        for split, n_lines in (("train", 200), ("valid", 20)):
            lines = [" ".join(rng.choices(words, k=6)) for _ in range(n_lines)]
            (folder / "text" / f"{split}.{language}.txt").write_text("\n".join(lines) + "\n")
    prepared = ["prepare", str(folder / "text"), str(folder / "data"), "--vocab-size=320"]
    assert main([*prepared, "--workers=1"]) == 0
    small = ("--dim=16", "--n-layers=1", "--n-heads=2", "--batch-tokens=256", "--window=16")
    short = ("--steps=2", "--save-every=2", "--threads=1")
    command = ["train", "--objective=mlm", *small, *short, f"--data={folder / 'data'}"]
    assert main([*command, f"--out={folder / 'run'}"]) == 0
    return folder / "run"


def test_a_run_is_trained_in_english_and_evaluated_in_every_language(
    run: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ["finetune", "xnli", "--from", str(run), f"--xnli.data={data}", f"--out={out}"]
    assert main([*command, "--epochs=1", "--batch-sentences=4", "--threads=1"]) == 0
    results = json.loads((out / "results.json").read_text())
    for split in ("valid", "test"):
        each = [results[f"{split}_{language}_xnli_acc"] for language in PAIRS]
        assert results[f"{split}_xnli_acc"] == pytest.approx(sum(each) / 3)
    for language in PAIRS:
        predicted = (out / "predictions" / f"test.{language}.txt").read_text().splitlines()
        expected = 100 * accuracy_score(parts(data)["test", language].labels, predicted)
        assert results[f"test_{language}_xnli_acc"] == pytest.approx(expected)


def test_missing_files_end_the_command_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["finetune", "xnli", "--from=RUN", f"--xnli.data={tmp_path}"]
    assert main([*command, f"--out={tmp_path / 'out'}"]) == 2
    told = capsys.readouterr().err
    assert "no multinli.train.LANGUAGE.tsv in there" in told
    assert "Traceback" not in told
    assert not any(tmp_path.iterdir())
