"""The rehearsal before training: as large as any batch, and without a trace."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.jobs import engine_of, job_of

from xlm_plugins.cli.main import main
from xlm_plugins.config.settings import Settings
from xlm_plugins.contracts.batch import Step
from xlm_plugins.training import preflight
from xlm_plugins.training.distributed.process_group import World
from xlm_plugins.training.distributed.watchdog import Watchdog
from xlm_plugins.training.engines.engine import Engine
from xlm_plugins.training.engines.torch_engine import TorchEngine
from xlm_plugins.training.preflight import largest, rehearse

MakeSettings = Callable[..., Settings]
OBJECTIVES = ["mlm", "tlm:en-fr", "bt"]


def everything(engine: Engine) -> dict[str, torch.Tensor]:
    """Weights, moments, all buffers, and torch's random state."""
    state = engine.state()
    found = dict(state.weights)
    found |= {f"{k} {n}": t for k, moments in state.moments.items() for n, t in moments.items()}
    found |= {f"buffer {name}": b.clone() for name, b in engine.model.named_buffers()}
    found |= {
        f"gradient {n}": p.grad for n, p in engine.model.named_parameters() if p.grad is not None
    }
    counters = {
        f"{place} {name}": counter
        for place, layer in engine.model.layers_by_position.items()
        for name, counter in layer.statistics().items()
    }
    return {**found, **counters, "random": torch.get_rng_state()}


def test_everything_is_bitwise_unchanged(tiny_settings: MakeSettings) -> None:
    job = job_of(tiny_settings(objective=OBJECTIVES))
    engine = engine_of(job)
    assert any("running_mean" in name for name, _ in engine.model.named_buffers())
    before = everything(engine)
    with preflight.unchanged(engine):  # all of them, as on a GPU
        for one in job.rehearsals(1):
            batch = engine.prepare(one.trainable, one.batch, one.step)
            engine.forward_backward(one.trainable, batch, math.nan)
            assert engine.step(0.0).skipped
    assert rehearse(engine, job.rehearsals(1), Watchdog(World(), 10.0)) == ""
    after = everything(engine)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name


def test_a_change_would_be_noticed(tiny_settings: MakeSettings) -> None:
    """The comparison above can fail: a step that is not undone leaves a trace."""
    job = job_of(tiny_settings())
    engine = engine_of(job)
    before = everything(engine)
    (one, _) = job.rehearsals(1)
    engine.forward_backward(one.trainable, one.batch, math.nan)
    engine.step(0.0)
    after = everything(engine)
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed  # running statistics and the random state
    assert not any(name.startswith("encoder") and "running" not in name and "num_b" not in name
                   for name in changed)  # fmt: skip


def test_no_batch_of_a_run_is_larger(tiny_settings: MakeSettings) -> None:
    """Not even of `bt`, whose samples have similar lengths: sometimes all are the longest."""
    job = job_of(tiny_settings(batch_tokens=1024, objective=OBJECTIVES))
    batches = job.training_plan(engine_of(job)).batches
    most: dict[str, int] = {}
    for index in range(400):
        name = job.plan.schedule.update(index).objective
        (batch,) = batches[index]
        most[name] = max(most.get(name, 0), batch.n_tokens)
    for one in job.rehearsals(1):
        assert most[one.trainable.name] <= one.batch.n_tokens <= 2 * most[one.trainable.name]


def test_the_longest_samples_that_are_trained_on_fill_it(tiny_settings: MakeSettings) -> None:
    plan = job_of(tiny_settings(max_length=20)).plan
    step = Step(("en", "fr"))
    one = largest(plan.objectives["tlm"], [step], plan.manifest, plan.sizes, n_parts=1)
    lengths = one.batch.offsets.diff()
    assert set(lengths.tolist()) == {2 * (20 + 2)}
    halves = largest(plan.objectives["tlm"], [step], plan.manifest, plan.sizes, n_parts=4)
    assert halves.batch.n_tokens < one.batch.n_tokens / 2
    mlm = largest(plan.objectives["mlm"], [Step(("en",))], plan.manifest, plan.sizes, n_parts=1)
    assert set(mlm.batch.offsets.diff().tolist()) == {plan.sizes.stream_window}


OPTIONS = ("--dim=16", "--n-layers=1", "--n-heads=2", "--batch-tokens=256", "--window=32")


@pytest.mark.parametrize("when", ["before", "during"])
def test_too_large_a_batch_is_reported_before_anything_is_written(
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    when: str,
) -> None:
    calls: list[Any] = []

    def full(self: TorchEngine, *arguments: Any) -> None:
        calls.append(arguments)
        if when == "before" or len(calls) > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB.")
        return forward(self, *arguments)

    forward = TorchEngine.forward_backward
    monkeypatch.setattr(TorchEngine, "forward_backward", full)
    command = ["train", "--objective=mlm", f"--data={tiny_data}", f"--out={tmp_path / 'run'}"]
    assert main([*command, *OPTIONS, "--steps=3", "--evaluate-every=0", "--threads=1"]) == 2
    told = capsys.readouterr().err
    where = "the largest batch, tried before training" if when == "before" else "update 0 (mlm:"
    for part in ("error: rank 0 ran out of memory on cpu", where, "--batch-tokens", "--zero-stage",
                 "expected: memory per rank, about: "):  # fmt: skip
        assert part in told
    assert "Traceback" not in told
    assert not (tmp_path / "run").exists()


def test_fine_tuning_tries_its_longest_rows(
    toy_command: Callable[..., list[str]],
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(self: TorchEngine, trainable: Any, batch: Any, scale: float) -> None:
        raise MemoryError(batch.n_tokens)

    monkeypatch.setattr(TorchEngine, "forward_backward", refuse)
    assert main(toy_command(tiny_run, tmp_path / "run")) == 2
    told = capsys.readouterr().err
    assert "during: classify:en, " in told
    assert "--batch-sentences" in told
    assert not (tmp_path / "run").exists()
