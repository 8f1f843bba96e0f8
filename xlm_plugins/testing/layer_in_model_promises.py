"""What a layer promises about its counters, and as part of a model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn

from xlm_plugins.contracts.batch import Batch, pack
from xlm_plugins.contracts.layer import Layer
from xlm_plugins.contracts.ragged import Ragged
from xlm_plugins.core.selection import Position, parse_positions
from xlm_plugins.model.model import Model
from xlm_plugins.model.weights import load_tensors, load_weights, named_weights, save_tensors
from xlm_plugins.testing.data import TINY
from xlm_plugins.testing.gradients import demand_one_order, order_of_gradients
from xlm_plugins.testing.layer_promises import DIM, LayerCase, apart, evaluated, rows
from xlm_plugins.testing.promises import demand, promise

VOCABULARY_SIZE = 50
BATCHES = (1, 2, 63, 64, 257, 512, 0)
"""Numbers of rows: round and odd ones, which libraries treat differently, and none, as in the last
layer of a rank that has nothing to predict."""


def model_with(case: LayerCase, places: str, seed: int = 0) -> Model:
    """A model with two layers of width 16, and the tested layer at places such as ``0,1+``."""
    positions = parse_positions(places)
    layers = case.build(len(positions), seed)
    placed: dict[Position, Layer] = dict(zip(positions, layers, strict=True))
    options = dataclasses.replace(TINY, dim=DIM)
    return Model(options, VOCABULARY_SIZE, 2, ["encoder", "decoder"], 2, placed)


def batch() -> Batch:
    """Three sequences, one of them a single token, whose tokens are predicted from themselves."""
    tokens = Ragged.of([[7, 8, 9, 10], [11], [12, 13, 14, 15, 16]])
    predicted = np.array([1, 4, 6, 9])
    languages = tokens.filled(0)
    packed = pack(
        tokens, tokens.positions(), languages, predicted, tokens.values[predicted], np.arange(3)
    )
    return dataclasses.replace(packed, source=packed)


def loss_of(model: Model) -> Tensor:
    """The loss of `batch`, to which every layer of the model contributes.  Shape: ()"""
    return model.predict_from_source(batch()).loss


@promise("it works in every place of a stack, instead of an FFN and after a layer", "Layer")
def works_in_every_place(case: LayerCase) -> None:
    for places in ("0", "1+", "0,0+,1,1+", "dec.0", "dec.1+", "0,dec.1"):
        model = model_with(case, places)
        loss = loss_of(model.train())
        demand(math.isfinite(loss.detach()), f"at {places}: the loss is {loss.item()}")
        torch.autograd.backward(loss)
        wrong = [n for n, p in model.named_parameters() if p.grad is not None and _bad(p.grad)]
        demand(not wrong, f"at {places}: the gradient of {', '.join(wrong)} is not finite")


@promise("gradients arrive in the same order for all batches, for ZeRO 2 and 3", "Layer.forward")
def sends_gradients_in_one_order(case: LayerCase) -> None:
    usual = _order_of_gradients(case, rows())
    for n in BATCHES:
        found = _order_of_gradients(case, rows(n, seed=n))
        demand_one_order(usual, found, (f"{len(rows())} rows", f"{n}"))


@promise("its output depends only on parameters and persistent buffers", "Layer")
def survives_saving(case: LayerCase) -> None:
    model = model_with(case, "0,dec.1+")
    torch.autograd.backward(loss_of(model.train()))
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    copy = model_with(case, "0,dec.1+", seed=1)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "weights"
        save_tensors(path, named_weights(model))
        load_weights(copy, load_tensors(path), "the saved model")
    with torch.no_grad():
        one, other = (float(loss_of(each.eval())) for each in (model, copy))
    demand(one == other, f"a loss of {one:g}, but {other:g} after the model was saved and loaded")


@promise("counters are sums over batches in eval mode", "Layer.statistics")
def counts_in_sums(case: LayerCase) -> None:
    layer, parts = case.one(), (rows(seed=3), rows(n=5, seed=4))
    counted = []
    for part in parts:
        layer.reset_statistics()
        evaluated(layer, part)
        counted.append(_counters(layer))
    layer.reset_statistics()
    for part in parts:
        evaluated(layer, part)
    first, second = counted
    sums = {name: first[name] + second[name] for name in first}
    _demand_same(sums, _counters(layer), "for two batches separately, and one after the other")


@promise("a reset sets counters to zero, and keeps names and shapes", "Layer.reset_statistics")
def counts_anew_after_a_reset(case: LayerCase) -> None:
    (layer,) = case.build()
    at_first = _counters(layer)
    evaluated(layer, rows())
    _demand_alike(at_first, _counters(layer), "initially, and after a batch")
    layer.reset_statistics()
    for when, counters in (("initially", at_first), ("after a reset", _counters(layer))):
        counted = [name for name, value in counters.items() if value.any()]
        demand(not counted, f"{', '.join(counted)} is not zero {when}")
    _demand_same(at_first, _counters(layer), "initially, and after a reset")
    layer.train()(rows())
    _demand_same(at_first, _counters(layer), "before and after a forward pass in training")


@promise("counters do not change once they were returned", "Layer.statistics")
def hands_counters_out_for_good(case: LayerCase) -> None:
    layer = case.one()
    for what, change in (
        ("a batch", lambda: evaluated(layer, rows())),
        ("a reset", layer.reset_statistics),
    ):
        returned = layer.statistics()
        before = {name: value.clone() for name, value in returned.items()}
        change()
        changed = [name for name, value in before.items() if not torch.equal(value, returned[name])]
        demand(not changed, f"{what} changes {', '.join(changed)}, which was returned before")


@promise("metrics are numbers by name, even for counters of no batch", "Layer.metrics")
def makes_metrics_of_counters(case: LayerCase) -> None:
    layer = case.one()
    layer.reset_statistics()
    for n_batches in (0, 1):
        for _ in range(n_batches):
            evaluated(layer, rows())
        for name, value in layer.metrics(layer.statistics()).items():
            fine = isinstance(name, str) and isinstance(value, float)
            demand(fine, f"{name!r} is {value!r}, of type {type(value).__name__}")


@promise("training continues after an evaluation in inference mode", "Layer.forward")
def trains_after_inference(case: LayerCase) -> None:
    (layer,) = case.build()
    with torch.inference_mode():
        layer.eval()(rows())
        layer.statistics()
    y = layer.train()(rows())
    if y.requires_grad:
        y.square().sum().backward()
    evaluated(layer, rows())


def _order_of_gradients(case: LayerCase, x: Tensor) -> list[str]:
    """The parameters of two consecutive layers, in the order in which gradients are complete."""
    layers = nn.ModuleList(case.build(2)).train()

    def loss() -> Tensor:
        states = x.requires_grad_()
        for layer in layers:
            states = states + layer(states)
        return states.square().sum()

    return order_of_gradients(layers, loss)


def _counters(layer: Layer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in layer.statistics().items()}


def _demand_alike(one: Mapping[str, Tensor], other: Mapping[str, Tensor], what: str) -> None:
    """The same names and shapes."""
    shapes = [{name: tuple(value.shape) for name, value in each.items()} for each in (one, other)]
    demand(shapes[0] == shapes[1], f"{shapes[0]} and {shapes[1]} {what}")


def _demand_same(one: Mapping[str, Tensor], other: Mapping[str, Tensor], what: str) -> None:
    _demand_alike(one, other, what)
    for name, value in one.items():
        distance = apart(value, other[name])
        demand(distance < 1e-4, f"{name} is {distance:.2g} off {what}")


def _bad(gradient: Tensor) -> bool:
    return not bool(gradient.isfinite().all())


PROMISES = (
    works_in_every_place,
    sends_gradients_in_one_order,
    survives_saving,
    counts_in_sums,
    counts_anew_after_a_reset,
    hands_counters_out_for_good,
    makes_metrics_of_counters,
    trains_after_inference,
)
