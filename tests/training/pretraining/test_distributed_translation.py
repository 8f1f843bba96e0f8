"""Two processes that translate during training do what one process does.

In fp32 without dropout, and with an epsilon that keeps Adam from making rounding large.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from xlm_plugins.cli.main import main

SECONDS = 240
OPTIONS = shlex.split(
    "--objective mlm --objective ae --objective bt --dim 16 --n-layers 1 --n-heads 2 "
    "--dropout 0 --eps 1e-6 --lr 1e-2 --warmup 2 --steps 12 --log-every 1 --translate-sentences 6 "
    "--evaluate-every 0 --save-every 0 --threads 1"
)
VERSES = ("--batch-tokens=512", "--window=32", "--max-length=30")
UNEVEN = ("--batch-tokens=64", "--window=32", "--max-length=200", "--lanes=2")
SENTENCES = {
    "en": ("Jesus wept.", "and he went up into a mountain"),
    "fr": ("Jésus pleura.", "et il monta sur la montagne"),
}


Train = Callable[..., Path]


@pytest.fixture(scope="module")
def train(as_ranks: Callable[..., list[int]]) -> Train:
    """Trains in the test's process, or as ranks in separate ones."""

    def run(out: Path, n_processes: int, *options: str | Path) -> Path:
        log = out.with_suffix(".log")
        arguments = ["train", "--out", out, *OPTIONS, *options]
        if n_processes == 1:
            assert main([*map(str, arguments)]) == 0
            return out
        statuses = as_ranks(["-m", "xlm_plugins", *arguments], n_processes, log, SECONDS)
        assert statuses == [0] * n_processes, log.read_text()
        return out

    return run


def lines(run: Path, kind: str = "train") -> list[dict[str, Any]]:
    found = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line for line in found if line["kind"] == kind]


def assert_same_run(run: Path, reference: Path) -> None:
    """The same steps, as many tokens, losses and weights to 1e-5, and the same translations."""
    found, expected = lines(run), lines(reference)
    assert {line["objective"] for line in expected} == {"mlm", "ae", "bt"}
    for name in ("step", "objective", "languages", "tokens"):
        assert [line[name] for line in found] == [line[name] for line in expected]
    losses, wanted = ([line["loss"] for line in each] for each in (found, expected))
    assert losses == pytest.approx(wanted, abs=1e-5)
    weights, known = (
        load_file(each / "checkpoints" / "step-12" / "model.safetensors")
        for each in (run, reference)
    )
    assert weights.keys() == known.keys()
    for name, weight in known.items():
        # Keys' biases change no share, so that their gradient is rounding; Adam makes it large.
        near = 1e-4 if name.endswith("qkv.bias") else 1e-5
        assert weights[name] == pytest.approx(weight, abs=near), name
    written, told = (
        {path.name: path.read_text() for path in (each / "hypotheses").rglob("*.txt")}
        for each in (run, reference)
    )
    assert written == told != {}, (written, told)


@pytest.fixture(scope="module")
def one_process(train: Train, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the torch engine that others must equal, and that learns."""
    run = train(tmp_path_factory.mktemp("one") / "run", 1, "--data", tiny_data, *VERSES)
    losses = [line["loss"] for line in lines(run)]
    assert losses[-1] < losses[0] - 0.3
    return run


@pytest.mark.parametrize("stage", [pytest.param("1", marks=pytest.mark.slow), "2"])
def test_alternating_objectives_train_as_in_one_process(
    train: Train, one_process: Path, tiny_data: Path, tmp_path: Path, stage: str
) -> None:
    run = train(tmp_path / "run", 2, "--data", tiny_data, *VERSES, "--zero-stage", stage)
    assert_same_run(run, one_process)


@pytest.fixture(scope="module")
def uneven_data(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sentences of each language, one of 5 tokens or so and one of 90.

    Each is a block of its own, and two lanes are dealt one each: while one rank has the short one,
    the other has the long one.
    """
    folder = tmp_path_factory.mktemp("uneven")
    (folder / "text").mkdir()
    for language, (short, clause) in SENTENCES.items():
        for split in ("train", "valid"):
            text = f"{short}\n{' '.join([clause] * 9)}\n"
            (folder / "text" / f"{split}.{language}.txt").write_text(text, encoding="utf-8")
    arguments = [folder / "text", folder / "data", "--tokenizer-from", tiny_data, "--workers=1"]
    assert main(["prepare", *map(str, arguments)]) == 0
    return folder / "data"


@pytest.fixture(scope="module")
def uneven_one_process(
    train: Train, uneven_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return train(tmp_path_factory.mktemp("one") / "run", 1, "--data", uneven_data, *UNEVEN)


@pytest.mark.parametrize("stage", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_a_rank_with_long_sentences_is_waited_for(
    train: Train, uneven_one_process: Path, uneven_data: Path, tmp_path: Path, stage: str
) -> None:
    run = train(tmp_path / "run", 2, "--data", uneven_data, *UNEVEN, "--zero-stage", stage)
    assert_same_run(run, uneven_one_process)
