"""Translation retrieval: what is counted, and the command on a tiny model."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from xlm_retrieval.measure import Accuracy, Side, accuracies, baselines, chosen_layers

from xlm_plugins import OptionError, load
from xlm_plugins.cli.main import main

N_PAIRS = 12


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A barely trained model of two layers and two invented languages, and two files."""
    folder = tmp_path_factory.mktemp("retrieval")
    source = folder / "text"
    source.mkdir()
    rng = random.Random(0)
    words = ["".join(rng.choices("aeioubdklmn", k=4)) for _ in range(60)]
    lines = [" ".join(rng.choices(words, k=6)) for _ in range(300)]
    for split, text in (("train", lines), ("valid", lines[:30])):
        for language, of in (("xa", str), ("xb", str.swapcase)):
            (source / f"{split}.{language}.txt").write_text("\n".join(map(of, text)) + "\n")
    command = ["prepare", str(source), str(folder / "data"), "--vocab-size=320", "--workers=1"]
    assert main(command) == 0
    small = ("--dim=16", "--n-layers=2", "--n-heads=2", "--batch-tokens=256", "--window=16")
    run = folder / "run"
    command = ["train", "--objective=mlm", *small, "--steps=2", "--threads=1", f"--out={run}"]
    assert main([*command, f"--data={folder / 'data'}"]) == 0
    (folder / "left").write_text("\n".join(lines[:N_PAIRS]) + "\n")
    (folder / "right").write_text("\n".join(lines[:N_PAIRS]) + "\n")
    return run


Retrieval = Callable[..., tuple[int, str, str]]


@pytest.fixture
def retrieval(run: Path, capsys: pytest.CaptureFixture[str]) -> Retrieval:
    """Call `xlm retrieval` on the two files; returns status, output and messages."""

    def retrieval(
        *arguments: str, left: Path | None = None, right: Path | None = None
    ) -> tuple[int, str, str]:
        capsys.readouterr()
        files = (str(left or run.with_name("left")), str(right or run.with_name("right")))
        status = main(["retrieval", str(run), "--from=xa", "--to=xb", *files, *arguments])
        return status, *capsys.readouterr()

    return retrieval


def test_a_translation_counts_wherever_it_occurs() -> None:
    left, right = Side("a", ["one", "two", "Three"]), Side("b", ["un", "deux", "deux"])
    assert left.share_found(np.array([0, 2, 0]), right) == pytest.approx(200 / 3)
    assert right.share_found(np.array([0, 2, 1]), left) == pytest.approx(100 / 3)


def test_chance_and_word_overlap() -> None:
    left = Side("a", ["Abraham dit", "42 fois", "Isaac dit", "rien"])
    right = Side("b", ["Abraham said", "42 times", "said Isaac", "said Isaac"])
    chance, overlap = baselines(left, right)
    assert chance == Accuracy("chance", None, 100 * (1 / 4 + 1 / 4 + 2 / 4 + 2 / 4) / 4, 25.0)
    assert overlap == Accuracy("word overlap", None, 75.0, 75.0)


def test_each_layer_and_score_is_measured_both_ways() -> None:
    n = 6
    vectors = np.eye(n, dtype=np.float32) + 1
    swapped = [1, 0, *range(2, n)]

    def embed(texts: Any, language: str, *, layer: int) -> np.ndarray:
        assert list(texts) == list(map(str, range(n)))
        return vectors[swapped] if (layer, language) == (1, "b") else vectors

    texts = list(map(str, range(n)))
    found = list(accuracies(embed, Side("a", texts), Side("b", texts), [0, 1], ["cosine"]))
    share = 100 * (n - 2) / n
    assert found == [Accuracy("cosine", 0, 100.0, 100.0), Accuracy("cosine", 1, share, share)]


@pytest.mark.parametrize(
    ("text", "layers"),
    [("all", [0, 1, 2, 3]), ("0,2,-1", [0, 2, 3]), ("-1, 3", [3]), ("-4", [0])],
)
def test_layers_are_read(text: str, layers: list[int]) -> None:
    assert chosen_layers(text, 3) == layers


@pytest.mark.parametrize(("text", "bad"), [("4", "4"), ("0,-5", "-5"), ("1,,2", ""), ("x", "x")])
def test_a_layer_that_does_not_exist_is_refused(text: str, bad: str) -> None:
    with pytest.raises(OptionError, match=f"there is no layer '{bad}'\n.*to 3, .* to -4"):
        chosen_layers(text, 3)


def test_it_measures_the_model_that_is_named(run: Path, retrieval: Retrieval) -> None:
    """The command agrees with the definition, given the model's own embeddings."""
    status, out, _ = retrieval("--json", "--layers=0,-1", "--pool=first", "--no-centre")
    assert status == 0
    told = json.loads(out)
    assert (told["n_pairs"], told["pool"], told["centred"]) == (N_PAIRS, "first", False)
    keys = [(row["score"], row["layer"], row["from"]) for row in told["results"]]
    scored = [(s, layer, way) for layer in (0, 2) for s in ("cosine", "margin") for way in BOTH]
    assert keys == [(s, None, way) for s in ("chance", "word overlap") for way in BOTH] + scored
    texts = run.with_name("left").read_text().splitlines()
    model = load(run)
    left, right = (model.embed(texts, way, layer=2, pool="first") for way in BOTH)
    cosines = (left @ right.T) / np.outer(*(np.linalg.norm(x, axis=1) for x in (left, right)))
    expected = 100 * (cosines.argmax(axis=1) == np.arange(N_PAIRS)).mean()
    assert told["results"][keys.index(("cosine", 2, "xa"))]["accuracy"] == pytest.approx(expected)


BOTH = ("xa", "xb")


def test_the_table_names_chance_and_word_overlap(retrieval: Retrieval) -> None:
    status, out, told = retrieval("--score=margin")
    assert (status, told) == (0, "")
    rows = [line.split() for line in out.splitlines()]
    assert rows[0] == f"Translations found among {N_PAIRS}".split()
    assert rows[1] == ["layer", "xa", "to", "xb", "xb", "to", "xa"]
    assert rows[2] == ["chance", "8.3", "%", "8.3", "%"]
    assert rows[3] == ["word", "overlap", "100.0", "%", "100.0", "%"]
    assert [row[:2] for row in rows[4:]] == [["margin", str(layer)] for layer in range(3)]


@pytest.mark.parametrize("arguments", [(), ("--layers=2,0", "--score=cosine")], ids=["all", "two"])
def test_it_draws(arguments: tuple[str, ...], retrieval: Retrieval, tmp_path: Path) -> None:
    picture = tmp_path / "deep" / "retrieval.svg"
    assert retrieval("--plot", str(picture), *arguments)[0] == 0
    assert "<svg" in picture.read_text()


def test_pairs_with_a_blank_side_are_left_out(retrieval: Retrieval, tmp_path: Path) -> None:
    left, right = tmp_path / "a", tmp_path / "b"
    left.write_text("ab\n\nkl\nmn\nba\nlk\nnm\n")
    right.write_text("AB\nDE\nKL\nMN\n  \nLK\nNM\n")
    status, out, told = retrieval("--json", left=left, right=right)
    assert (status, json.loads(out)["n_pairs"]) == (0, 5)
    assert told == "2 line pairs with a blank side are left out\n"


@pytest.mark.parametrize(
    ("left", "right", "problem"),
    [
        (b"a\nb\nc\n", b"a\nb\n", r"a has 3 lines, and .*b has 2"),
        (b"", b"", r"have no line with text in both"),
        (b"a\n\n", b"\nb\n", r"have no line with text in both"),
        (b"a\nb\n", b"a\n\xe9\n", r"b, line 2: byte 1 .* 0xe9, which is not UTF-8"),
        (b"a\n", None, r"there is no file .*b"),
    ],
    ids=["lengths", "empty", "blank", "latin-1", "missing"],
)
def test_bad_files_are_refused(
    left: bytes, right: bytes | None, problem: str, retrieval: Retrieval, tmp_path: Path
) -> None:
    for name, content in (("a", left), ("b", right)):
        if content is not None:
            (tmp_path / name).write_bytes(content)
    status, out, told = retrieval(left=tmp_path / "a", right=tmp_path / "b")
    assert (status, out) == (2, "")
    assert re.search(problem, told)


@pytest.mark.parametrize(
    ("argument", "problem"),
    [
        (
            "--from=fr",
            "--from fr: the model does not know this language\n  expected: one of xa, xb",
        ),
        ("--to=de", "--to de: the model does not know this language"),
        ("--layers=3", "--layers 3: there is no layer '3'"),
        ("--plot=picture.txt", "picture.txt has no known image format"),
    ],
)
def test_bad_arguments_are_refused(argument: str, problem: str, retrieval: Retrieval) -> None:
    status, out, told = retrieval(argument)
    assert (status, out) == (2, "")
    assert problem in told


def test_too_few_pairs_for_a_margin_are_refused(retrieval: Retrieval, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.write_text("ab\nkl\nmn\n")
    status, _, told = retrieval(left=few, right=few)
    assert status == 2
    assert "--score cosine" in told
    assert retrieval("--score=cosine", left=few, right=few)[0] == 0
