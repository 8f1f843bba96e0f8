"""Metrics of models with known scores."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from xlm_plugins.config.settings import Settings
from xlm_plugins.config.training import OptimizerOptions, TrainOptions
from xlm_plugins.contracts.layer import Layer
from xlm_plugins.core.errors import DataError
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.selection import Position
from xlm_plugins.data.batches.evaluation_batches import evaluation_batches
from xlm_plugins.model.model import Model
from xlm_plugins.training.distributed.process_group import World
from xlm_plugins.training.engines.torch_engine import TorchEngine
from xlm_plugins.training.pretraining.evaluation import (
    LayerCounters,
    PretrainingEvaluation,
    evaluate_run,
)
from xlm_plugins.training.pretraining.plan import make_plan

Planned = tuple[PretrainingEvaluation, Model]


@pytest.fixture(scope="module")
def planned(tiny_settings: Callable[..., Settings]) -> Callable[..., Planned]:
    """A plan and an untrained model for options of ``[train]``."""

    def planned(**options: object) -> Planned:
        plan = make_plan(tiny_settings(**options), Plugins.discover())
        torch.manual_seed(1)
        model = plan.description.build_model(plan.objectives)
        return (
            PretrainingEvaluation(
                plan.folder, plan.manifest, plan.objectives, plan.steps, plan.sizes
            ),
            model,
        )

    return planned


def _measure(plan: PretrainingEvaluation, model: Model, split: str = "valid") -> dict[str, float]:
    return plan.evaluate(TorchEngine(model, OptimizerOptions(), TrainOptions(), World()), split)


def _always(model: Model, bias: torch.Tensor | None = None) -> None:
    """Give the model the same scores everywhere: the bias, or 0."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        if bias is not None:
            model.encoder.output.bias.copy_(bias)


def test_even_scores_have_the_perplexity_of_the_vocabularys_size(
    planned: Callable[..., Planned],
) -> None:
    plan, model = planned(objective=["mlm", "tlm", "clm:en"], layer=[])
    _always(model)
    metrics = _measure(plan, model)
    perplexities = {name: value for name, value in metrics.items() if name.endswith("_ppl")}
    assert set(perplexities) == {
        "valid_en_mlm_ppl", "valid_fr_mlm_ppl", "valid_mlm_ppl",
        "valid_en-fr_tlm_ppl", "valid_en-fr_tlm_alone_ppl",
        "valid_fr-en_tlm_ppl", "valid_fr-en_tlm_alone_ppl", "valid_tlm_ppl",
        "valid_en_clm_ppl", "valid_clm_ppl",
    }  # fmt: skip
    assert list(perplexities.values()) == pytest.approx([400] * len(perplexities), rel=1e-5)


def test_perplexity_and_accuracy_are_those_of_the_predicted_tokens(
    planned: Callable[..., Planned],
) -> None:
    """A model that only knows token frequencies: both can be counted."""
    plan, model = planned(objective=["mlm:fr"], layer=[])
    (step,) = plan.steps["mlm"]
    batches = evaluation_batches(
        plan.folder, plan.manifest, "valid", plan.objectives["mlm"], step, plan.sizes
    )
    targets = torch.cat([batch.targets for each, _ in batches for batch in each.values()])
    bias = torch.linspace(-2, 2, 400)
    bias[targets.mode().values] = 5.0
    _always(model, bias)
    metrics = _measure(plan, model)
    mean = -bias.double().log_softmax(0)[targets].mean()
    assert metrics["valid_fr_mlm_ppl"] == pytest.approx(math.exp(mean), rel=1e-5)
    n_correct = int((targets == targets.mode().values).sum())
    assert 1 < n_correct < len(targets)
    assert metrics["valid_fr_mlm_acc"] == pytest.approx(100 * n_correct / len(targets))


def test_a_perplexity_that_overflows_is_infinite(planned: Callable[..., Planned]) -> None:
    plan, model = planned(objective=["mlm:en"], layer=[])
    bias = torch.zeros(400)
    bias[0] = 1e4  # a special token, which is never right
    _always(model, bias)
    assert _measure(plan, model)["valid_en_mlm_ppl"] == math.inf


def test_means_are_over_steps_and_not_over_a_step_s_other_metrics(
    planned: Callable[..., Planned],
) -> None:
    metrics = _measure(*planned(objective=["tlm"], layer=[]))
    for measure in ("ppl", "acc"):
        steps = [metrics[f"valid_{step}_tlm_{measure}"] for step in ("en-fr", "fr-en")]
        assert metrics[f"valid_tlm_{measure}"] == pytest.approx(sum(steps) / 2)
        assert f"valid_tlm_alone_{measure}" not in metrics


def test_the_batch_size_does_not_matter_if_nothing_is_masked(
    planned: Callable[..., Planned],
) -> None:
    plan, model = planned(objective=["clm"], layer=["pkm"])
    small = _measure(plan, model)
    large = _measure(replace(plan, sizes=replace(plan.sizes, batch_tokens=2048)), model)
    assert small.keys() == large.keys()
    assert list(small.values()) == pytest.approx(list(large.values()), rel=1e-5)


def test_grouping_training_batches_by_length_does_not_matter(
    planned: Callable[..., Planned],
) -> None:
    usual, grouped = (planned(group_by_length=by_length) for by_length in (False, True))
    assert (usual[0].sizes.by_length, grouped[0].sizes.by_length) == (False, True)
    assert _measure(*usual) == _measure(*grouped)


def test_every_evaluation_measures_the_same(planned: Callable[..., Planned]) -> None:
    """Masks are the same as the time before, and layers start counting again."""
    plan, model = planned(objective=["mlm:en", "tlm:en-fr"], layer=["pkm"])
    first = _measure(plan, model.train())
    assert _measure(plan, model) == first
    assert 0 < first["valid_enc.1_pkm_usage"] <= 100
    assert model.training


def test_repeated_batches_do_not_count_for_layers() -> None:
    """A batch that only keeps ranks in step is not measured."""

    class Counting(Layer):
        n_seen = 0

        def statistics(self) -> dict[str, torch.Tensor]:
            return {"seen": torch.tensor(self.n_seen)}

        def reset_statistics(self) -> None:
            self.n_seen = 0

    place, layer = Position("encoder", 0, True), Counting(None, 4)
    layer.n_seen = 100  # of an evaluation before
    counters = LayerCounters({place: layer})
    for n_seen, counts in ((3, True), (50, False), (4, True)):
        layer.n_seen += n_seen
        if counts:
            counters.add()
        else:
            counters.forget()
    assert counters.sums[place]["seen"] == 7


def test_splits_have_names_and_steps_without_text_are_skipped(
    planned: Callable[..., Planned],
) -> None:
    plan, model = planned(objective=["mlm", "tlm:en-fr"], layer=[])
    assert all(name.startswith("test_") for name in _measure(plan, model, "test"))
    assert _measure(plan, model, "nowhere") == {}
    streams = [s for s in plan.manifest.streams if s.name not in ("test.fr", "test.en-fr")]
    partly = replace(plan, manifest=replace(plan.manifest, streams=streams))
    assert set(_measure(partly, model, "test")) == {
        "test_en_mlm_ppl", "test_en_mlm_acc", "test_mlm_ppl", "test_mlm_acc"
    }  # fmt: skip


def test_a_run_evaluates_to_what_it_measured_during_training(
    tiny_run: Path, tiny_data: Path
) -> None:
    """The final line of metrics.jsonl is the last model's."""
    line = json.loads((tiny_run / "metrics.jsonl").read_text().splitlines()[-1])
    metrics = evaluate_run(f"{tiny_run}@last", None, "valid", Plugins.discover())
    assert metrics == pytest.approx({name: line[name] for name in metrics}, rel=1e-6)
    assert set(line) - set(metrics) == {"kind", "step", "time"}


def test_an_unknown_split_lists_the_known_ones(tiny_run: Path) -> None:
    with pytest.raises(DataError, match=r"'dev'.*\n.*test, train, valid"):
        evaluate_run(str(tiny_run), None, "dev", Plugins.discover())
