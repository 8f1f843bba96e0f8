"""Two processes fine-tune as one does, with one seed after another.

In fp32 without dropout, and with an epsilon that keeps Adam from making rounding large.
"""

from __future__ import annotations

import json
import random
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from xlm_plugins.cli.main import main
from xlm_plugins.config.settings import Settings
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.testing.runs import metrics_of
from xlm_plugins.training.pretraining.job import train

pytestmark = pytest.mark.slow
SECONDS = 400
OPTIONS = shlex.split(
    "--seeds 2 --lr 1e-2 --head-lr 2e-2 --warmup 2 --dropout 0 --eps 1e-6 --batch-sentences 10 "
    "--steps 9 --evaluate-every 4 --save-every 0 --max-length 32 --log-every 1 --pool mean "
    "--class-weights balanced --threads 1"
)


@pytest.fixture(scope="module")
def command(
    tiny_settings: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    """Fine-tunes a model without memory, whose BatchNorm would see only a rank's own tokens."""
    folder, rng = tmp_path_factory.mktemp("distributed"), random.Random(1)
    few = {"steps": 2, "evaluate_every": 0, "save_every": 0}
    settings = tiny_settings(layer=[], out=str(folder / "base"), **few)
    base = train(settings, Plugins.discover()).path
    for split, n_rows in (("train", 43), ("valid", 301), ("test", 17)):
        words = [rng.choices(("God", "king", "the", "said"), k=rng.randrange(1, 9))
                 for _ in range(n_rows)]  # fmt: skip
        rows = "".join(f"{'yes' if 'God' in row else 'no'}\t{' '.join(row)}\n" for row in words)
        (folder / f"{split}.en.tsv").write_text(f"label\ttext\n{rows}")
    files = [f"--classify.{s}={folder / f'{s}.en.tsv'}" for s in ("train", "valid", "test")]
    return ["finetune", "classify", f"--from={base}", *files, *OPTIONS]


@pytest.fixture(scope="module")
def one_process(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of the torch engine, which the others must equal."""
    out = tmp_path_factory.mktemp("one") / "runs"
    assert main([*command, f"--out={out}"]) == 0
    return out


def words(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if isinstance(value, str)}


def numbers(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if not isinstance(value, str)}


@pytest.mark.parametrize("stage", ["1", "3"])
def test_two_processes_equal_one(
    one_process: Path,
    command: list[str],
    as_ranks: Callable[..., list[int]],
    tmp_path: Path,
    stage: str,
) -> None:
    out, log = tmp_path / "runs", tmp_path / "log"
    arguments = ["-m", "xlm_plugins", *command, f"--out={out}", "--zero-stage", stage]
    assert as_ranks(arguments, 2, log, SECONDS) == [0, 0], log.read_text()
    for name in ("seed-1", "seed-2"):
        found, expected = metrics_of(out / name), metrics_of(one_process / name)
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert words(one) == words(other)
            assert numbers(one) == pytest.approx(numbers(other), abs=1e-4, rel=1e-4)
        weights, known = (
            load_file(runs / name / "checkpoints" / "step-9" / "model.safetensors")
            for runs in (out, one_process)
        )
        assert weights.keys() == known.keys()
        for key, weight in known.items():
            # Keys' biases change no share, so that their gradient is rounding.
            near = 1e-4 if key.endswith("qkv.bias") else 1e-5
            assert weights[key] == pytest.approx(weight, abs=near), key
    told, expected = (json.loads((r / "results.json").read_text()) for r in (out, one_process))
    assert told["mean"] == pytest.approx(expected["mean"])
    assert told["n_seeds"] == 2


def test_if_one_process_refuses_all_do(
    command: list[str], as_ranks: Callable[..., list[int]], tmp_path: Path
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").write_text("not a run")
    log = tmp_path / "log"
    arguments = ["-m", "xlm_plugins", *command, f"--out={tmp_path / 'runs'}"]
    assert as_ranks(arguments, 2, log, SECONDS) == [2, 2], log.read_text()
    assert "is not empty" in log.read_text()
