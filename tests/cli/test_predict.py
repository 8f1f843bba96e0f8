"""``xlm predict``: the same labels as in the run, and what it refuses."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

import xlm_plugins
from xlm_plugins import BundleError, OptionError
from xlm_plugins.cli.main import main

Piped = Callable[..., tuple[int, bytes, str]]
WORDS = ("God", "king", "the", "said", "house")
SETTINGS = (
    "--lr=1e-2", "--head-lr=1e-2", "--warmup=0", "--steps=6", "--max-length=64", "--threads=1",
)  # fmt: skip
N_ROWS = 30


@pytest.fixture(scope="module")
def rows() -> list[tuple[str, str]]:
    """Pairs of sentences of different lengths."""
    rng = random.Random(3)
    return [
        tuple(" ".join(rng.choices(WORDS, k=rng.randrange(1, 8))) for _ in range(2))
        for _ in range(N_ROWS)
    ]


def finetuned(
    base: Path, rows: list[tuple[str, str]], n_texts: int, kind: str, folder: Path
) -> Path:
    """A run that was trained and tested on the first texts of rows, or on both."""
    names = ("one", "two")[:n_texts]
    labels = ["even", "odd", "none"] if kind == "classification" else ["1.5", "-2", "0.25"]
    table = ["\t".join(("label", *names))]
    table += ["\t".join((labels[n % 3], *row[:n_texts])) for n, row in enumerate(rows)]
    file = folder / "rows.en.tsv"
    file.write_text("\n".join(table) + "\n")
    files = [f"--classify.{split}={file}" for split in ("train", "valid", "test")]
    command = ["finetune", "classify", f"--from={base}", f"--out={folder / 'run'}", *files]
    assert main([*command, f"--classify.kind={kind}", *SETTINGS]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def classifier(
    tiny_run: Path, rows: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Of one text.  For reading only."""
    return finetuned(tiny_run, rows, 1, "classification", tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def regression(
    tiny_run: Path, rows: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Of pairs.  For reading only."""
    return finetuned(tiny_run, rows, 2, "regression", tmp_path_factory.mktemp("two"))


def predictions(run: Path) -> list[str]:
    return (run / "predictions" / "test.en.txt").read_text().splitlines()


def test_labels_precede_the_lines(
    classifier: Path,
    rows: list[tuple[str, str]],
    piped: Piped,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("xlm_plugins.cli.pipes.LINES_AT_ONCE", 7)
    content = "".join(f"{text}\n" for text, _ in rows)
    status, out, err = piped("predict", classifier, "--language=en", content=content)
    assert (status, err) == (0, "")
    told = [line.split("\t") for line in out.decode().splitlines()]
    assert [label for label, _, _ in told] == predictions(classifier)
    assert [text for _, _, text in told] == [text for text, _ in rows]
    assert all(1 / 3 <= float(share) <= 1 for _, share, _ in told)


def test_json_lines_have_all_probabilities(
    classifier: Path, rows: list[tuple[str, str]], piped: Piped
) -> None:
    content = "".join(f"{text}\n" for text, _ in rows)
    status, out, _ = piped("predict", classifier, "--language=en", "--json-lines", content=content)
    assert status == 0
    told = [json.loads(line) for line in out.decode().splitlines()]
    assert [answer["label"] for answer in told] == predictions(classifier)
    assert [answer["text"] for answer in told] == [text for text, _ in rows]
    for answer in told:
        shares = answer["probabilities"]
        assert list(shares) == ["even", "none", "odd"]
        assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
        assert max(shares, key=shares.__getitem__) == answer["label"]


def test_pairs_are_separated_by_a_tab(
    regression: Path, rows: list[tuple[str, str]], piped: Piped
) -> None:
    content = "".join(f"{one}\t{other}\n" for one, other in rows)
    status, out, err = piped("predict", regression, "--language=en", content=content)
    assert (status, err) == (0, "")
    told = [line.split("\t") for line in out.decode().splitlines()]
    expected = [float(value) for value in predictions(regression)]
    assert [float(value) for value, *_ in told] == pytest.approx(expected, abs=1.1e-4)
    assert len(set(expected)) > 10
    assert [tuple(texts) for _, *texts in told] == rows
    _, out, _ = piped("predict", regression, "--language=en", "--json-lines", content=content)
    answers = [json.loads(line) for line in out.decode().splitlines()]
    assert [answer["value"] for answer in answers] == pytest.approx(expected, abs=1.1e-4)
    assert answers[0].keys() == {"text", "value"}


def test_nothing_in_nothing_out(classifier: Path, piped: Piped) -> None:
    assert piped("predict", classifier, "--language=en") == (0, b"", "")


def test_truncated_rows_are_counted(classifier: Path, piped: Piped) -> None:
    content = "God\n" + "God " * 90 + "\n"
    status, out, err = piped("predict", classifier, "--language=en", content=content)
    assert (status, len(out.splitlines())) == (0, 2)
    assert err == "1 of 2 rows were cut to 64 tokens\n"


def test_from_python(classifier: Path, regression: Path, rows: list[tuple[str, str]]) -> None:
    model = xlm_plugins.load(classifier)
    found = model.predict([text for text, _ in rows], "en")
    assert [prediction.label for prediction in found] == predictions(classifier)
    assert found[0].probabilities[found[0].label] == max(found[0].probabilities.values())
    assert model.predict([], "en") == []
    with pytest.raises(OptionError, match="2 text"):
        model.predict(rows, "en")
    pairs = xlm_plugins.load(regression).predict(rows, "en")
    expected = [float(value) for value in predictions(regression)]
    assert [float(pair.label) for pair in pairs] == pytest.approx(expected, abs=1.1e-4)
    assert pairs[0].probabilities == {}


def test_a_model_that_was_not_finetuned(tiny_run: Path, piped: Piped) -> None:
    status, out, err = piped("predict", tiny_run, "--language=en", content="God\n")
    assert (status, out) == (2, b"")
    assert "was not fine-tuned on a task" in err
    assert "xlm finetune TASK --from" in err
    with pytest.raises(BundleError, match="was not fine-tuned"):
        xlm_plugins.load(tiny_run).predict(["God"], "en")


@pytest.mark.parametrize(
    ("flags", "content", "told"),
    [
        (["--language=xx"], "God\tking\n", "--language with one of en, fr"),
        ([], "God\tking\n", "--language with one of en, fr"),
        (["--language=en"], "God\tking\nGod\n", "standard input, line 2: 1 text(s)"),
        (["--language=en"], "God\tking\tson\n", "standard input, line 1: 3 text(s)"),
    ],
)
def test_what_is_refused(
    regression: Path, piped: Piped, flags: list[str], content: str, told: str
) -> None:
    status, out, err = piped("predict", regression, *flags, content=content)
    assert (status, out) == (2, b"")
    assert told in err
    assert "Traceback" not in err
