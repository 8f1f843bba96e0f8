"""``xlm translate``: lines in, lines out, and what it refuses."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console

import xlm_plugins
from xlm_plugins.cli.main import main
from xlm_plugins.cli.pipes import input_lines
from xlm_plugins.config.model import GenerationOptions, ModelOptions
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.saved_tokenizers import save_tokenizer
from xlm_plugins.inference.common import BATCH_TOKENS
from xlm_plugins.model.bundle import write_description
from xlm_plugins.model.description import ChosenObjective, ModelDescription
from xlm_plugins.model.weights import named_weights, save_tensors
from xlm_plugins.runs.layout import WEIGHTS_NAME
from xlm_plugins.testing.words import WordTokenizer

PLUGIN = """
from xlm_plugins import Component, hookimpl

@hookimpl
def xlm_objectives():
    return [Component("swap", "swap_objective:Swap")]

@hookimpl
def xlm_tokenizers():
    return [Component("swap-words", "xlm_plugins.testing.words:WordTokenizer")]
"""

OBJECTIVE = """
from xlm_plugins import Objective

class Swap(Objective):
    stacks = frozenset({"encoder", "decoder"})
    n_languages = (2,)
    def layout(self, step): ...
    def make_batch(self, samples, step, rng): ...
    def loss(self, model, batch): ...
    def translations(self, step): return (step,)
"""

WORDS = ("été", "дом", "語", "ça", "où", "Ä", "ñ", "ж", "ü")
TEXT = "ça où Ä ñ\n\nété ñ\nü ü ü ü ü ü\n   \nж ж\n語 дом\n"


@pytest.fixture
def bundle(install: Callable[..., Path], tmp_path: Path) -> Path:
    """A model with random weights of a plugin's own objective, trained on fr-en in name only."""
    site = install("xlm-swap", PLUGIN)
    (site / "swap_objective.py").write_text(OBJECTIVE)
    plugins = Plugins.discover()
    component, words = plugins.get("objective", "swap"), plugins.get("tokenizer", "swap-words")
    tokenizer = WordTokenizer(WORDS)
    options = ModelOptions(dim=16, n_layers=1, n_heads=2, max_positions=22)
    chosen = ChosenObjective(component, component.options(), ("fr-en",))
    description = ModelDescription(
        options,
        tokenizer.vocabulary(),
        {"en": 0, "fr": 1},
        ("encoder", "decoder"),
        objectives=(chosen,),
    )
    torch.manual_seed(1)
    model = description.build_model({})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.5 * torch.randn_like(parameter)
    folder = tmp_path / "bundle"
    save_tokenizer(words, tokenizer, tmp_path / "saved")
    folder.mkdir()
    write_description(folder, description, tmp_path / "saved")
    save_tensors(folder / WEIGHTS_NAME, named_weights(model))
    return folder


Translate = Callable[..., tuple[int, str, str]]


@pytest.fixture
def translate(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Translate:
    """Run the command in this process; returns status, standard output and standard error."""

    def translate(
        *arguments: str, content: str | bytes = TEXT, run: Path = bundle
    ) -> tuple[int, str, str]:
        content = content.encode() if isinstance(content, str) else content
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        given = ["--from=fr", "--to=en", *arguments]
        status = main(["translate", str(run), "--threads=1", *given])
        return status, *capsys.readouterr()

    return translate


def test_every_line_gives_a_line_in_order(bundle: Path, translate: Translate) -> None:
    status, out, err = translate()
    assert (status, err) == (0, "")
    lines = out.split("\n")
    assert lines[-1] == ""
    model = xlm_plugins.load(bundle)
    texts = TEXT.split("\n")[:-1]
    assert lines[:-1] == [model.translate([text], source="fr", target="en")[0] for text in texts]
    assert [not line for line in lines[:-1]] == [not text.strip() for text in texts]
    assert len(set(lines)) > 3


@pytest.mark.parametrize("content", ["", "ü ж ж", "\n", "ñ\r\n", "\ufeffü ñ\n", "\n\n\nñ\u2028ж\n"])
def test_lines_end_at_newlines_and_nowhere_else(translate: Translate, content: str) -> None:
    status, out, _ = translate(content=content)
    assert status == 0
    assert out.count("\n") == len(content.removesuffix("\n").split("\n")) * (content != "")
    plain = content.replace("\r", "").replace("\ufeff", "").replace("\u2028", " ")
    assert translate(content=plain)[1] == out


def test_a_byte_order_mark_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    content = "\ufeffa\r\nb \ufeff\n\nc".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert list(input_lines(3)) == [["a", "b \ufeff", ""], ["c"]]


def test_long_input_is_read_in_chunks(
    translate: Translate, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = translate()[1]
    monkeypatch.setattr("xlm_plugins.cli.pipes.LINES_AT_ONCE", 3)
    assert translate(content=TEXT * 3)[1] == whole * 3


def test_the_best_n_with_scores(bundle: Path, translate: Translate) -> None:
    _, out, _ = translate("--n-best=2", "--scores", "--beam=3", "--length-penalty=0.5")
    lines = [line.split("\t") for line in out.split("\n")[:-1]]
    options = GenerationOptions(beam=3, length_penalty=0.5)
    found = xlm_plugins.load(bundle).translations(TEXT.split("\n")[:-1], "fr", "en", options, 2)
    assert lines == [[f"{t.score:.4f}", t.text] for two in found for t in two]
    assert lines[2:4] == [["0.0000", ""]] * 2
    best = [line[1] for line in lines[::2]]
    assert translate("--beam=3", "--length-penalty=0.5")[1].split("\n")[:-1] == best


def test_generation_follows_its_flags(translate: Translate) -> None:
    greedy = translate()[1]
    sampled = [translate("--sample", "--temperature=3", f"--seed={n}")[1] for n in (1, 1, 2)]
    assert sampled[0] == sampled[1] != sampled[2]
    assert translate("--sample", "--top-k=1")[1] == greedy
    assert translate("--batch-tokens=1")[1] == greedy


def test_long_lines_are_cut_and_counted_or_refused(
    translate: Translate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xlm_plugins.cli.pipes.LINES_AT_ONCE", 2)
    content = "\n".join(["ж", "ñ ж " * 10, "ñ", "ü " * 21, "ü " * 500, ""])
    status, out, err = translate(content=content)
    assert status == 0
    assert out.count("\n") == 5
    told = (
        "2 of 5 lines were cut to 20 tokens, all that the model reads; --strict refuses such lines"
    )
    assert err == told + "\n"
    status, strict_out, err = translate("--strict", content=content)
    assert status == 2
    assert "standard input, line 4: 21 tokens\n  expected: at most 20" in err
    assert strict_out == "".join(line + "\n" for line in out.split("\n")[:2])  # whole chunks only


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--from=xx"], "does not know the language 'xx'\n  expected: one of en, fr"),
        (["--from=en", "--to=fr"], "from en to fr\n  expected: a direction that it was trained "),
        (["--beam=6"], "a beam of 6 is more than the model's vocabulary can fill"),
        (["--n-best=2"], "a beam of 1 does not find 2 translations"),
        (["--beam=2", "--sample"], "sample and beam = 2 are mutually exclusive"),
        (["--beam=0"], "generation.beam = 0"),
        (["--temprature=1"], "did you mean --temperature?"),
        (["--n-best=0"], "--n-best"),
        (["--batch-tokens=0"], "--batch-tokens"),
    ],
)
def test_what_is_refused(translate: Translate, arguments: list[str], told: str) -> None:
    status, out, err = translate(*arguments)
    assert (status, out) == (2, "")
    assert told in err
    assert "Traceback" not in err


def test_a_model_that_was_only_pretrained(translate: Translate, tiny_run: Path) -> None:
    status, out, err = translate(run=tiny_run)
    assert (status, out) == (2, "")
    assert "has no decoder: it was trained with mlm, tlm only" in err
    assert re.search(r"xlm train --init \S*/run/\S+ --objective mt:fr-en --data DATA", err)


def test_bytes_that_are_not_utf8(translate: Translate) -> None:
    content = "ж ñ\nété\n".encode() + "où été\n".encode("latin-1")
    status, out, err = translate(content=content)
    assert (status, out) == (2, "")
    assert "standard input, line 3: byte 2 of the line is 0xf9, which is not UTF-8" in err
    assert "--errors replace" in err
    status, out, _ = translate("--errors=replace", content=content)
    assert (status, out.count("\n")) == (0, 3)


def test_progress_shows_on_a_terminal(
    translate: Translate, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = translate()[1]
    monkeypatch.setattr(Console, "is_terminal", True)
    status, out, err = translate()
    assert (status, out) == (0, expected)
    assert "7 lines translated" in err


def test_the_help_shows_the_actual_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translate", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"bounds memory. [default {BATCH_TOKENS}]" in out
    for flag in ("--beam INTEGER", "--length-penalty NUMBER", "--early-stopping / --no-early"):
        assert flag in out


def test_a_pipe_that_closes_ends_it_quietly_and_text_is_utf8_in_any_locale(
    bundle: Path, translate: Translate
) -> None:
    program = (
        "import sys; from xlm_plugins.cli import main, pipes; pipes.LINES_AT_ONCE = 7; "
        "sys.exit(main.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "translate", str(bundle), "--from=fr", "--to=en"]
    path = {"PYTHONPATH": str(bundle.parent / "site-packages")}
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    text = bundle.parent / "text"
    text.write_text(TEXT * 200, encoding="utf-8")
    with (
        text.open("rb") as file,
        subprocess.Popen(
            [*command, "--threads=1"],
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **path, **locale},
        ) as process,
    ):
        first = process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        process.wait(timeout=60)
    assert first.decode("utf-8") == translate()[1].split("\n")[0] + "\n"
    assert not first.isascii()
