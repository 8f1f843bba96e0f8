"""`xlm finetune classify`, start to finish, on an invented language pair."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from xlm_plugins.cli.main import main

WORDS = {
    "xa": ("dog", "cat", "house", "tree", "river"),
    "xb": ("hundo", "kato", "domo", "arbo", "rivero"),
}
MOODS = {"xa": {"good": "fine", "bad": "poor"}, "xb": {"good": "bela", "bad": "fusa"}}
VALUES = {"good": 2.5, "bad": -1.0}
SMALL = ("--dim=16", "--n-layers=2", "--n-heads=2", "--batch-tokens=256", "--threads=1")
QUICK = ("--lr=1e-2", "--head-lr=1e-2", "--max-length=32", "--threads=1", "--warmup=0")
LANGUAGES = {"train": ["xa"], "valid": ["xa", "xb"], "test": ["xa", "xb"]}


def sentences(language: str, moods: Iterable[str], rng: random.Random) -> list[str]:
    """Sentences with one word each that reveals their mood."""
    found = []
    for mood in moods:
        words = rng.choices(WORDS[language], k=5)
        words[rng.randrange(5)] = MOODS[language][mood]
        found.append(" ".join(words))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained run, and rows: SPLIT.LANGUAGE.tsv of classes, .jsonl of numbers.

    For reading only.
    """
    folder, rng = tmp_path_factory.mktemp("classify"), random.Random(0)
    (folder / "text").mkdir()
    for split, n_rows in (("train", 160), ("valid", 40), ("test", 40)):
        for language in WORDS:
            moods = rng.choices(["good", "bad"], k=n_rows)
            texts = sentences(language, moods, rng)
            (folder / "text" / f"{split}.{language}.txt").write_text("\n".join(texts) + "\n")
            both = list(zip(moods, texts, strict=True))
            rows = "".join(f"{mood}\t{text}\n" for mood, text in both)
            (folder / f"{split}.{language}.tsv").write_text(f"label\ttext\n{rows}")
            objects = [json.dumps({"label": VALUES[m], "one": t, "two": t}) for m, t in both]
            (folder / f"{split}.{language}.jsonl").write_text("\n".join(objects) + "\n")
    data = str(folder / "data")
    assert main(["prepare", str(folder / "text"), data, "--vocab-size=300", "--workers=1"]) == 0
    train = ["train", "--objective=mlm", f"--data={data}", f"--out={folder / 'run'}", "--steps=4"]
    assert main([*train, *SMALL]) == 0
    return folder


def files(folder: Path, ending: str, **others: str) -> list[str]:
    """The flags that name a file for each split and language; ``others`` replace them."""
    given = {split: ",".join(f"{folder}/{split}.{code}.{ending}" for code in languages)
             for split, languages in LANGUAGES.items()}  # fmt: skip
    return [f"--classify.{split}={value}" for split, value in {**given, **others}.items()]


def finetuned(folder: Path, out: Path, *arguments: str) -> dict[str, float]:
    """The results of a run, by name."""
    command = ["finetune", "classify", f"--from={folder / 'run'}", f"--out={out}", *QUICK]
    assert main([*command, *arguments]) == 0
    found: dict[str, float] = json.loads((out / "results.json").read_text())
    return found


def test_classes_are_learnt_and_measured_in_both_languages(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    results = finetuned(folder, out, "--epochs=10", *files(folder, "tsv"))
    assert set(results) == {
        f"{split}_{title}classify_{metric}"
        for split in ("valid", "test")
        for title in ("xa_", "xb_", "")
        for metric in ("acc", "macro_f1", "mcc")
    }
    assert results["test_xa_classify_acc"] > 95
    assert results["test_xa_classify_mcc"] > 90
    means = (results["test_xa_classify_acc"] + results["test_xb_classify_acc"]) / 2
    assert results["test_classify_acc"] == pytest.approx(means)
    for language in WORDS:
        with (out / "predictions" / f"test.{language}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        share = sum(row["label"] == row["predicted"] for row in rows) / len(rows)
        assert 100 * share == pytest.approx(results[f"test_{language}_classify_acc"])


def test_numbers_of_pairs_are_learnt(folder: Path, tmp_path: Path) -> None:
    chosen = ("--classify.kind=regression", "--classify.metric=spearman", "--epochs=10")
    results = finetuned(folder, tmp_path / "out", *chosen, *files(folder, "jsonl"))
    assert results["test_xa_classify_pearson"] > 90
    assert "test_xb_classify_spearman" in results
    (best,) = (path.name for path in (tmp_path / "out" / "best").iterdir() if path.is_dir())
    assert best == "valid_xa_classify_spearman"


BAD = {
    "a label that was not in train": (
        {"test.xb.tsv": "label\ttext\ngood\tdomo\nfair\tdomo\n"}, [],
        "test.xb.tsv, line 3: the label 'fair' is not among those of the training data\n"
        "  expected: one of bad, good",
    ),
    "a missing column": (
        {"test.xb.tsv": "mood\ttext\ngood\tdomo\n"}, [],
        "test.xb.tsv has no column 'label'\n  expected: one of mood, text",
    ),
    "an unknown language": (
        {"test.zz.tsv": "label\ttext\ngood\tdomo\n"}, [],
        "test.zz.tsv is in 'zz', which the model does not know\n  expected: one of xa, xb",
    ),
    "a label that is no number": (
        {"test.xb.jsonl": '{"label": 1, "one": "a", "two": "b"}\n{"label": "x", "one": "a", '
         '"two": "b"}\n'}, ["--classify.kind=regression"],
        "test.xb.jsonl, line 2: the label 'x' is not a number",
    ),
    "no rows": ({"test.xb.tsv": "label\ttext\n"}, [], "test.xb.tsv has no rows"),
    "no file": ({"test.xb.csv": None}, [], "there is no file"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_reported_and_nothing_is_written(
    name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written, options, told = BAD[name]
    ((file, text),) = written.items()
    if text is not None:
        (tmp_path / file).write_text(text)
    flags = files(folder, "jsonl" if file.endswith("jsonl") else "tsv", test=str(tmp_path / file))
    out = tmp_path / "out"
    command = ["finetune", "classify", f"--from={folder / 'run'}", f"--out={out}"]
    assert main([*command, *flags, *options]) == 2
    shown = capsys.readouterr()
    assert told in shown.err
    assert (shown.out, "Traceback" in shown.err, out.exists()) == ("", False, False)
