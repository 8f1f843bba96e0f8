"""Gradients come in one order, whatever a batch looks like.

ZeRO 2 and 3 sum them over ranks in the order in which they come.  Ranks have batches of their own,
so an order that depends on the batch sums gradients of different parameters.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from xlm_plugins import Batch, Model, Objective, Ragged, Samples, Step, Vocabulary
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.model.config import ModelOptions
from xlm_plugins.model.linear import ROWS

ROLES = {"bos": 0, "eos": 1, "pad": 2, "unk": 3, "sep": 4, "mask": 5}
VOCABULARY = Vocabulary(60, ROLES, tuple(range(14)))
LENGTHS = ([7], [3, 5, 9], [30], [62], [63], [64])
"""Of sentences, the same on both sides.  Laid out for one stack or the other, some are 64 rows, and
so multiplied by another library (`xlm_plugins.model.linear`)."""


@pytest.fixture(scope="module")
def model() -> Model:
    options = ModelOptions(dim=16, n_layers=2, n_heads=2)
    return Model(options, VOCABULARY.size, 2, ["encoder", "decoder"], ROLES["pad"])


def objective_of(name: str) -> Objective:
    component = Plugins.discover().get("objective", name)
    return component.load()(component.options(), VOCABULARY, {"en": 0, "fr": 1})


def batch_of(objective: Objective, step: Step, lengths: list[int]) -> Batch:
    rng = np.random.default_rng(0)
    sides = (
        Ragged.of([rng.integers(14, VOCABULARY.size, size=n) for n in lengths])
        for _ in set(step.languages)
    )
    return objective.make_batch(Samples(np.arange(len(lengths)), tuple(sides)), step, rng)


def order_of_gradients(model: Model, objective: Objective, batch: Batch) -> list[str]:
    """Parameters as their gradients become whole in a backward pass."""
    found: list[str] = []
    hooks = [
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: found.append(name))
        for name, parameter in model.named_parameters()
    ]
    model(objective, batch).loss.backward()
    for hook in hooks:
        hook.remove()
    model.zero_grad()
    return found


@pytest.mark.parametrize(
    ("name", "step"), [("mlm", "en"), ("tlm", "en-fr"), ("ae", "en"), ("mt", "en-fr")]
)
def test_gradients_come_in_one_order(model: Model, name: str, step: str) -> None:
    objective = objective_of(name)
    batches = [batch_of(objective, Step.parse(step), lengths) for lengths in LENGTHS]
    n_rows = [len(part.tokens) for batch in batches for part in (batch, batch.source) if part]
    assert {n % ROWS == 0 for n in n_rows} == {True, False}
    usual, *others = (order_of_gradients(model, objective, batch) for batch in batches)
    assert len(usual) > 20
    assert others == [usual] * len(others)


def test_with_nothing_to_predict_as_well(model: Model) -> None:
    """In a rank's share of a small batch MLM may have masked nothing."""
    objective = objective_of("mlm")
    batch = batch_of(objective, Step.parse("en"), [3, 5])
    nothing = torch.zeros(0, dtype=torch.long)
    silent = dataclasses.replace(batch, predicted=nothing, targets=nothing)
    usual = order_of_gradients(model, objective, batch)
    assert order_of_gradients(model, objective, silent) == usual
