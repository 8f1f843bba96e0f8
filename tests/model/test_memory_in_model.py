"""The product-key memory in a model: shared tables, and memories added to trained models."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from xlm_plugins.config.settings import Settings
from xlm_plugins.config.training import OptimizerOptions
from xlm_plugins.contracts.batch import Batch
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.model.bundle import Bundle
from xlm_plugins.model.model import Model
from xlm_plugins.model.weights import load_tensors
from xlm_plugins.runs.find import find_bundle
from xlm_plugins.runs.layout import WEIGHTS_NAME
from xlm_plugins.training.optim.parameter_groups import parameter_groups
from xlm_plugins.training.pretraining.job import train
from xlm_plugins.training.pretraining.plan import PretrainingPlan, make_plan
from xlm_plugins.training.warm_start.copy_weights import initialise

SHORT = {"steps": 4, "evaluate_every": 0, "save_every": 2}

MemorySettings = Callable[..., Settings]


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return Plugins.discover()


@pytest.fixture
def memory_settings(tiny_settings: Callable[..., Settings]) -> MemorySettings:
    """``memory_settings({"gate": True}, layer=["pkm:1+"])``: options of the memory and the run."""

    def settings(memory: dict[str, Any], **options: Any) -> Settings:
        found = tiny_settings(**options)
        changed = dataclasses.replace(found.components["pkm"], **memory)
        return dataclasses.replace(found, components={**found.components, "pkm": changed})

    return settings


@pytest.fixture
def saved(
    tiny_settings: Callable[..., Settings], plugins: Plugins, tiny_data: Path, tmp_path: Path
) -> Bundle:
    """A model without a memory, on disk."""
    plan = make_plan(tiny_settings(layer=[]), plugins)
    model = plan.description.build_model(plan.objectives)
    Bundle(plan.description, model, plan.tokenizer, {}, tiny_data).save(tmp_path / "saved")
    return Bundle.load(tmp_path / "saved", plugins)


def build(plan: PretrainingPlan) -> Model:
    torch.manual_seed(0)
    return plan.description.build_model(plan.objectives)


def a_batch() -> Batch:
    """Two sequences, all of whose tokens are predicted."""
    n_tokens = 11
    torch.manual_seed(1)
    return Batch(
        tokens=torch.randint(20, 400, (n_tokens,)),
        positions=torch.tensor([*range(5), *range(6)]),
        languages=torch.tensor([0] * 5 + [1] * 6),
        offsets=torch.tensor([0, 5, 11]),
        predicted=torch.arange(n_tokens),
        targets=torch.randint(20, 400, (n_tokens,)),
        sample_ids=torch.arange(2),
    )


def test_a_shared_table_has_one_name_and_one_group(
    memory_settings: MemorySettings, plugins: Plugins
) -> None:
    settings = memory_settings({"share_values": True}, layer=["pkm:0,0+,1+"])
    model = build(make_plan(settings, plugins))
    first, *others = model.layers_by_position.values()
    assert all(layer.values is first.values for layer in others)
    (name,) = [name for name, parameter in model.named_parameters() if parameter is first.values]
    groups = parameter_groups(model, OptimizerOptions())
    assert [group.names for group in groups if group.constant] == [(name,)]
    batch = a_batch()
    model.encoder.predict(batch).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_shared_table_is_saved_once_and_comes_back_shared(
    memory_settings: MemorySettings, plugins: Plugins, tmp_path: Path
) -> None:
    settings = memory_settings(
        {"share_values": True, "shuffle_slots": True, "modulo_size": 50},
        layer=["pkm:0+,1+"], out=str(tmp_path / "run"), **{**SHORT, "steps": 1},
    )  # fmt: skip
    run = train(settings, plugins).path
    path = find_bundle(str(run))
    written = load_tensors(path / WEIGHTS_NAME)
    (name,) = [name for name in written if name.endswith(".values")]
    bundle = Bundle.load(path, plugins)
    first, second = bundle.model.layers_by_position.values()
    assert first.values is second.values
    assert torch.equal(first.values, written[name])
    orders = [layer.head_permutations for layer in (first, second)]
    assert not torch.equal(*orders)
    state = bundle.model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in written.items())


@pytest.mark.parametrize("sparse", [False, True])
def test_a_run_with_a_shared_table_resumes_to_the_last_digit(
    memory_settings: MemorySettings, plugins: Plugins, tmp_path: Path, sparse: bool
) -> None:
    memory = {"share_values": True, "sparse_update": sparse, "gate": True}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    options = {"layer": ["pkm:0+,1"], **SHORT}
    train(memory_settings(memory, out=str(whole), **options), plugins)
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoints" / "step-4")
    train(memory_settings(memory, resume=str(cut), **options), plugins)
    ours, theirs = (load_tensors(run / "checkpoints/step-4" / WEIGHTS_NAME) for run in (cut, whole))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    "memory",
    [
        {},
        {"gate": True, "qk_norm": True, "share_values": True},
        {"flat": True, "query_hidden": (12,)},
        {"score_norm": "sum", "score_subtract": "min", "normalize_query": True},
    ],
    ids=str,
)
def test_a_memory_added_by_init_adds_nothing_at_first_and_then_learns(
    memory_settings: MemorySettings, plugins: Plugins, saved: Bundle, memory: dict[str, Any]
) -> None:
    plan = make_plan(memory_settings(memory, layer=["pkm:0+,1+"]), plugins)
    model = build(plan).eval()
    report = initialise(model, plan.description, plan.tokenizer, saved.path, plugins)
    assert report.at_zero == ["pkm at enc.0+", "pkm at enc.1+"]
    batch = a_batch()
    with torch.no_grad():
        expected = saved.model.encoder(batch)
    states = model.encoder(batch)
    assert torch.equal(states, expected)
    model.encoder.loss(states, batch.targets).loss.backward()
    for layer in model.layers_by_position.values():
        assert layer.values.grad.abs().sum() > 0
        with torch.no_grad():
            layer.values -= layer.values.grad
    with torch.no_grad():
        assert not torch.allclose(model.encoder(batch), expected)
