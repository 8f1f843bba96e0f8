"""Gradients arrive in one order, whatever the batch looks like.

ZeRO 2 and 3 sum them over ranks in the order in which they come.  Ranks have batches of their own,
so an order that depends on the batch sums gradients of different parameters.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from xlm_plugins import Batch, Model, Objective, Ragged, Samples, Step, Vocabulary
from xlm_plugins.config.model import ModelOptions
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.model.nn.linear import ROWS

ROLES = {"bos": 0, "eos": 1, "pad": 2, "unk": 3, "sep": 4, "mask": 5}
VOCABULARY = Vocabulary(60, ROLES, tuple(range(14)))
LENGTHS = ([7], [3, 5, 9], [30], [62], [63], [64])
"""Of sentences, the same on both sides.  Laid out for one stack or the other, some are 64 rows, and
so multiplied by another library (`xlm_plugins.model.nn.linear`)."""


def model_of(**options: Any) -> Model:
    shape = ModelOptions(dim=16, n_layers=2, n_heads=2, **options)
    return Model(shape, VOCABULARY.size, 2, ["encoder", "decoder"], ROLES["pad"])


@pytest.fixture(scope="module")
def model() -> Model:
    return model_of()


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
    """Parameters in the order in which a backward pass completes their gradients."""
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
    ("name", "step"),
    [("clm", "en"), ("mlm", "en"), ("tlm", "en-fr"), ("ae", "en"), ("mt", "en-fr")],
)
def test_gradients_come_in_one_order(model: Model, name: str, step: str) -> None:
    objective = objective_of(name)
    batches = [batch_of(objective, Step.parse(step), lengths) for lengths in LENGTHS]
    n_rows = [len(part.tokens) for batch in batches for part in (batch, batch.source) if part]
    assert {n % ROWS == 0 for n in n_rows} == {True, False}
    usual, *others = (order_of_gradients(model, objective, batch) for batch in batches)
    assert len(usual) > 20
    assert others == [usual] * len(others)


@pytest.mark.parametrize(
    "options", [{}, {"output_dense": True}, {"adaptive_cutoffs": (20, 40), "tied_output": False}]
)
def test_also_with_nothing_to_predict(options: dict[str, Any]) -> None:
    """In a rank's share of a small batch, MLM may have masked nothing."""
    model, objective = model_of(**options), objective_of("mlm")
    usual, *others = (batch_of(objective, Step.parse("en"), lengths) for lengths in LENGTHS)
    nothing = torch.zeros(0, dtype=torch.long)
    others.append(dataclasses.replace(usual, predicted=nothing, targets=nothing))
    order = order_of_gradients(model, objective, usual)
    assert "encoder.output" in " ".join(order)
    assert [order_of_gradients(model, objective, other) for other in others] == [order] * len(
        others
    )
