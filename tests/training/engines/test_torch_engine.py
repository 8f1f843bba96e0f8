"""The torch engine: gradients, updates, state, and refused options."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import engine_worker as worker

from xlm_plugins.config.training import OptimizerOptions, TrainOptions
from xlm_plugins.contracts.batch import Step
from xlm_plugins.core.errors import BundleError, OptionError, RunError
from xlm_plugins.training.distributed.process_group import World
from xlm_plugins.training.engines.create import create_engine
from xlm_plugins.training.engines.engine import choose_precision
from xlm_plugins.training.engines.torch_engine import TorchEngine
from xlm_plugins.training.engines.training_state import load_training_state, save_training_state

KINDS = (worker.Words, worker.Classes)


@pytest.fixture
def engine():
    return worker.engine_of(World())


def test_the_gradient_is_that_of_the_scaled_sum(engine):
    whole = worker.batch(0, 0, 1)
    output = engine.forward_backward(worker.objective(), whole, 0.5)
    assert not output.loss.requires_grad
    gradient = engine.model.hidden.weight.grad.clone()
    plain = worker.TinyModel()
    (0.5 * worker.objective().loss(plain, whole).loss).backward()
    torch.testing.assert_close(gradient, plain.hidden.weight.grad)
    assert output.n_targets == 24


def test_micro_batches_of_unequal_size_make_the_update_of_the_whole_batch():
    one, many = worker.engine_of(World()), worker.engine_of(World())
    histories = [worker.train(one, 4, kinds=KINDS), worker.train(many, 4, 0, 4, KINDS)]
    torch.testing.assert_close(*map(torch.tensor, histories), rtol=1e-5, atol=1e-6)
    for name, tensor in one.weights().items():
        torch.testing.assert_close(many.weights()[name], tensor, rtol=0, atol=1e-5)


def test_training_lowers_the_loss():
    engine = worker.engine_of(World(), options=OptimizerOptions(lr=5e-2, clip=0.0))
    losses = []
    for _ in range(40):
        losses.append(engine.forward_backward(worker.objective(), worker.batch(0, 0, 1), 1 / 24))
        engine.step(5e-2)
    assert losses[-1].loss < 0.2 * losses[0].loss


def test_resuming_through_files_is_bitwise(tmp_path, engine):
    worker.train(engine, 5, kinds=KINDS)
    save_training_state(tmp_path, engine.state())
    uninterrupted = worker.train(engine, 5, 5, kinds=KINDS)
    resumed = worker.engine_of(World(), load_training_state(tmp_path))
    assert worker.train(resumed, 5, 5, kinds=KINDS) == uninterrupted
    assert worker.digest(resumed) == worker.digest(engine)


def test_the_state_holds_every_weight_once_and_its_own_copy(engine):
    worker.train(engine, 1)
    state = engine.state()
    names = set(state.weights)
    assert "embedding.weight" in names
    assert "output.weight" not in names  # tied
    assert "centre" in names
    assert "scratch" not in names  # not persistent
    assert set(state.moments["exp_avg"]) == names - {"centre"}
    assert state.n_updates == 1
    before = state.weights["hidden.weight"].clone()
    worker.train(engine, 1, 1)
    assert torch.equal(state.weights["hidden.weight"], before)


def test_a_fresh_engine_has_an_initial_state(engine):
    resumed = worker.engine_of(World(), engine.state())
    assert worker.train(resumed, 2) == worker.train(engine, 2)


def test_skipped_updates_change_nothing_and_do_not_count():
    result = worker.scenario_skip(World(), Path(), engine="torch")
    assert [entry[2] for entry in result["broken"]] == [1.0]
    assert not math.isfinite(result["broken"][0][1])
    assert result["unchanged"]
    assert result["n"] == 4
    untouched = worker.engine_of(World())
    worker.train(untouched, 2)
    assert result["after"] == worker.train(untouched, 2, 2)


def test_frozen_parameters_do_not_change(engine):
    frozen = worker.engine_of(World(), train_only=("head.*",))
    before = frozen.weights()
    worker.train(frozen, 2, kinds=(worker.Classes,))
    after = frozen.weights()
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed == {"head.weight", "head.bias"}
    assert set(frozen.state().moments["exp_avg"]) == changed


def test_evaluation_has_no_gradient_and_returns_to_training(engine):
    engine.model.dropout.p = 0.5
    outputs = {float(engine.evaluate(worker.objective(), worker.batch(1, 0, 1)).loss) for _ in "ab"}
    assert len(outputs) == 1
    assert engine.model.training
    assert engine.model.dropout.training
    assert engine.model.hidden.weight.grad is None


def test_prepare_calls_the_objective_in_eval_mode_without_gradient(engine):
    seen = []

    class Preparing(worker.Words):
        def prepare(self, model, batch, step):
            seen.append((model.training, torch.is_grad_enabled(), str(step)))
            return replace(batch, sample_ids=batch.sample_ids + 100)

    step = Step(("en", "fr"))
    prepared = engine.prepare(worker.objective(Preparing), worker.batch(0, 0, 1), step)
    assert seen == [(False, False, "en-fr")]
    assert prepared.sample_ids[0] == 100
    assert engine.model.training
    assert torch.is_grad_enabled()


def test_one_process_sums_and_takes_maxima_alone(engine):
    values = torch.tensor([1.5, 2.0], dtype=torch.float64)
    total = engine.sum(values)
    assert torch.equal(total, values)
    total += 1
    assert values[0] == 1.5
    assert engine.max_over_ranks(7.25) == 7.25


def test_bf16_multiplies_in_bf16_and_keeps_fp32_weights():
    engine = worker.engine_of(World(), precision="bf16")
    fp32 = worker.engine_of(World())
    histories = [worker.train(e, 3) for e in (engine, fp32)]
    assert histories[0] != histories[1]
    torch.testing.assert_close(*map(torch.tensor, histories), rtol=0.02, atol=0.02)
    assert {p.dtype for p in engine.model.parameters()} == {torch.float32}


def test_fp16_is_refused_with_the_engine_that_supports_it():
    with pytest.raises(OptionError, match="deepspeed"):
        worker.engine_of(World(), precision="fp16")


def test_precision_auto_on_a_cpu_is_fp32():
    assert choose_precision("auto", torch.device("cpu")) == "fp32"
    assert choose_precision("bf16", torch.device("cpu")) == "bf16"


def test_the_engine_follows_the_world():
    assert isinstance(worker.engine_of(World()), TorchEngine)
    with pytest.raises(RunError, match="one process"):
        create_engine(
            worker.TinyModel(), worker.ADAM, TrainOptions(engine="torch"), World(world_size=2)
        )


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda state: state.weights.pop("hidden.bias"), r"hidden\.bias is missing"),
        (lambda state: state.weights.update(x=torch.ones(1)), "x is not in the model"),
        (
            lambda state: state.weights.update(centre=torch.ones(2)),
            r"centre is \(2,\)",
        ),
        (lambda state: state.moments["exp_avg"].pop("hidden.bias"), "moments exp_avg"),
        (lambda state: state.moments.pop("exp_avg_sq"), "moments exp_avg_sq"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(engine, damage, told):
    state = engine.state()
    damage(state)
    with pytest.raises(BundleError, match=told):
        worker.engine_of(World(), state)
