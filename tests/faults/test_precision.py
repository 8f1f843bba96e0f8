"""fp16 and bf16 through the command line; overflows; losses that stay non-finite."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from xlm_plugins import DivergenceError
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.testing.runs import metrics_of
from xlm_plugins.training.pretraining.job import train
from xlm_plugins.training.trainer import MAX_SKIPPED_IN_A_ROW, Trainer

HALF = Path(__file__).with_name("half_precision.py")
KILLED = -9
SCALE = {"fp16": {"initial_scale_power": 26, "hysteresis": 1}}

Train = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def trained(start: Callable[..., list[int]], tiny_run: Path, tmp_path: Path) -> Train:
    """Trains as `tiny_run` does, except for flags, and returns the lines of metrics.jsonl.

    ``trained("fp16", "--precision=fp16", kill=(7, 500))``: killed there, and gone on with.
    """

    def trained(
        name: str, *flags: str, kill: tuple[int, int] | None = None
    ) -> list[dict[str, Any]]:
        out, log = tmp_path / name, tmp_path / f"{name}.log"
        command = ["train", f"--config={tiny_run / 'config.toml'}", f"--out={out}"]
        command += ["--resume=auto", "--log-every=1", "--save-every=3", *flags]
        if kill:
            assert start(command, log, script=HALF, kill=kill) == [KILLED], log.read_text()
        assert start(command, log, script=HALF) == [0], log.read_text()
        assert "Traceback" not in log.read_text()
        return metrics_of(out)

    return trained


def losses(lines: list[dict[str, Any]]) -> list[float]:
    return [line["loss"] for line in lines if line["kind"] == "train"]


PRECISIONS = [
    ("fp16", "--engine=deepspeed", "--zero-stage=1"),
    ("fp16", "--engine=deepspeed", "--zero-stage=2"),
    ("bf16", "--engine=deepspeed", "--zero-stage=1"),
    ("bf16", "--engine=torch"),
]


@pytest.mark.faults
@pytest.mark.parametrize("options", PRECISIONS, ids="-".join)
def test_half_precision_learns_like_fp32_and_resumes_bitwise(
    trained: Train, faults: Any, options: tuple[str, ...]
) -> None:
    precision, *flags = options
    fault = f"SIGKILL in {precision}"
    whole = trained("whole", f"--precision={precision}", *flags)
    faults.inject(fault)
    assert trained("killed", f"--precision={precision}", *flags, kill=(7, 900)) == whole
    faults.survive(fault)
    exact = losses(trained("fp32", "--precision=fp32", *flags))
    assert losses(whole)[-1] < losses(whole)[0] - 0.5
    differences = [abs(a - b) for a, b in zip(losses(whole), exact, strict=True)]
    assert 0 < max(differences) < 0.05


@pytest.mark.faults
def test_overflows_in_fp16_are_skipped_and_counted(
    trained: Train, tmp_path: Path, faults: Any
) -> None:
    """The scale starts far too high, and halves until gradients fit; a kill comes in between."""
    fault, config = "an overflow in fp16", tmp_path / "scale.json"
    config.write_text(json.dumps(SCALE))
    flags = ("--precision=fp16", "--engine=deepspeed", f"--deepspeed-config={config}")
    flags = (*flags, "--steps=24")
    whole = trained("whole", *flags)
    lines = [line for line in whole if line["kind"] == "train"]
    n_skipped = [line["skipped"] for line in lines]
    for _ in range(n_skipped[-1]):
        faults.inject(fault)
    assert 3 <= n_skipped[-1] < MAX_SKIPPED_IN_A_ROW
    assert n_skipped[:3] == [1, 2, 3]
    assert lines[0]["gradient_norm"] == "inf"
    assert n_skipped[-1] == n_skipped[-4]
    assert losses(whole)[-1] < losses(whole)[0] - 0.5
    assert trained("killed", *flags, kill=(4, 900)) == whole
    for _ in range(n_skipped[-1]):
        faults.survive(fault, "that update")


@pytest.mark.faults
@pytest.mark.parametrize("options", [("fp32", "torch"), ("fp16", "deepspeed")], ids="-".join)
def test_losses_that_stay_non_finite_end_the_run_by_name(
    start: Callable[..., list[int]],
    tiny_run: Path,
    tmp_path: Path,
    faults: Any,
    options: tuple[str, str],
) -> None:
    fault, log, out = "losses that stay non-finite", tmp_path / "log", tmp_path / "run"
    command = ["train", f"--config={tiny_run / 'config.toml'}", f"--out={out}", "--steps=60"]
    command += [f"--precision={options[0]}", f"--engine={options[1]}", "--save-every=2"]
    faults.inject(fault)
    assert start([*command, "--lr=1e38", "--evaluate-every=0"], log, script=HALF) == [2]
    told = log.read_text()
    assert f"not finite in {MAX_SKIPPED_IN_A_ROW} updates in a row" in told
    assert re.search(r"update \d+ \((mlm|tlm):\S+, samples \[\d+(, \d+){3,}", told)
    assert "hint: lower --lr" in told
    assert "Traceback" not in told
    faults.survive(fault, "the run: it cannot learn")


def test_the_samples_that_are_named_are_those_of_the_batch(
    tiny_settings: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []
    count = Trainer._count_skipped

    def note_and_count(self: Trainer, skipped: bool, update: Any, batches: list[Any]) -> None:
        seen.append([n for batch in batches for n in batch.sample_ids.tolist()])
        count(self, skipped, update, batches)

    monkeypatch.setattr(Trainer, "_count_skipped", note_and_count)
    settings = tiny_settings(out=str(tmp_path / "run"), evaluate_every=0, save_every=0, steps=40)
    settings = replace(settings, optimizer=replace(settings.optimizer, lr=1e38))
    with pytest.raises(DivergenceError) as told:
        train(settings, Plugins.discover())
    assert f"samples {seen[-1][:10]}" in told.value.problem
    assert len(seen) > MAX_SKIPPED_IN_A_ROW
