"""What a layer promises by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from xlm_plugins.contracts.layer import Layer, ParameterGroup
from xlm_plugins.core.registry import Component
from xlm_plugins.core.selection import parse_positions
from xlm_plugins.testing.promises import demand, promise

DIM = 16
N_ROWS = 24
TOLERANCE = 1e-4
N_UPDATES = 100
LEARNT = 0.7
"""Share of its first loss that a layer may still have after it fits random targets."""


@dataclass(frozen=True)
class LayerCase:
    """A layer under test."""

    component: Component
    options: Any

    def build(self, n_positions: int = 1, seed: int = 0) -> list[Layer]:
        """The layers as the runtime has them; under one seed always the same ones."""
        torch.manual_seed(seed)
        layers: list[Layer] = self.component.load().build(self.options, DIM, n_positions)
        return layers

    def one(self) -> Layer:
        """A layer that has seen a batch, so that what it gathers in training is not as at first."""
        (layer,) = self.build()
        with torch.no_grad():
            layer.train()(rows(seed=9))
        return layer


def rows(n: int = N_ROWS, seed: int = 0) -> Tensor:
    """Packed states of the size that LayerNorm gives them.  Shape: (n, DIM)"""
    return torch.randn(n, DIM, generator=torch.Generator().manual_seed(seed))


def evaluated(layer: Layer, x: Tensor) -> Tensor:
    """What a layer gives in eval mode."""
    with torch.no_grad():
        y: Tensor = layer.eval()(x)
    return y


def apart(one: Tensor, other: Tensor) -> float:
    """The greatest difference, by the size of what is compared.  0 for empty tensors."""
    if not one.numel():
        return 0.0
    return float((one - other).abs().max() / one.abs().max().clamp(min=1.0))


@promise("a selection of n positions builds n layers, each an object of its own", "Layer.build")
def builds_a_layer_a_position(case: LayerCase) -> None:
    for n_positions in (1, 2):
        layers = case.build(n_positions)
        wrong = [layer for layer in layers if not isinstance(layer, Layer)]
        demand(not wrong, f"{wrong} among them")
        n = len({id(layer) for layer in layers})
        demand(n == n_positions == len(layers), f"{n} layers for {n_positions} positions")


@promise("under one seed the layers are the same again", "Layer.build")
def is_built_the_same_under_a_seed(case: LayerCase) -> None:
    for one, other in zip(case.build(2), case.build(2), strict=True):
        twin = other.state_dict()
        for name, tensor in one.state_dict().items():
            demand(torch.equal(tensor, twin[name]), f"{name} is another one the second time")


@promise("the default position is in the stack, whatever its depth", "Layer.default_position")
def goes_where_there_is_a_place(case: LayerCase) -> None:
    for n_layers in range(1, 13):
        text = case.component.load().default_position(n_layers)
        fine = all(position.index < n_layers for position in parse_positions(text))
        demand(fine, f"{text!r} for a stack of {n_layers} layers, which count from 0")


@promise("states of any number of rows keep their shape and type, and stay finite", "Layer.forward")
def keeps_shape_and_type(case: LayerCase) -> None:
    (layer,) = case.build()
    for is_training in (True, False):
        for n in (N_ROWS, 1, 0):
            y = layer.train(is_training)(rows(n))
            where = f"of {n} rows in {'training' if is_training else 'eval mode'}"
            demand(y.shape == (n, DIM), f"{where}: shape {tuple(y.shape)}, not {(n, DIM)}")
            demand(y.dtype == torch.float32, f"{where}: {y.dtype} of float32")
            demand(bool(y.isfinite().all()), f"{where}: what is not finite")


@promise("it runs under autocast to bf16, as `--precision bf16` does", "Layer.forward")
def runs_under_autocast(case: LayerCase) -> None:
    (layer,) = case.build()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer.train()(rows())
        loss = y.float().square().sum()
    demand(bool(y.isfinite().all()), "what is not finite")
    if loss.requires_grad:
        loss.backward()


@promise("in eval mode rows do not see each other", "Layer.forward")
def keeps_rows_apart(case: LayerCase) -> None:
    layer, x = case.one(), rows()
    together = evaluated(layer, x)
    for some in (slice(3, 4), slice(5, 20)):
        alone = evaluated(layer, x[some])
        distance = apart(alone, together[some])
        demand(distance < TOLERANCE, f"rows alone are {distance:.2g} off those among others")
    order = torch.arange(N_ROWS - 1, -1, -1)
    distance = apart(evaluated(layer, x[order]), together[order])
    demand(distance < TOLERANCE, f"rows in another order are {distance:.2g} off")


@promise("in eval mode it draws no random numbers; in training the seed decides", "Layer.forward")
def repeats_under_a_seed(case: LayerCase) -> None:
    for is_training in (True, False):
        outputs = []
        for seed in (1, 1 if is_training else 2):
            layer = case.one().train(is_training)
            torch.manual_seed(seed)
            outputs.append(layer(rows()))
        mode = "training, under one seed" if is_training else "eval mode"
        demand(torch.equal(*outputs), f"two forwards in {mode} differ")


@promise("a forward changes no parameter, and in eval mode no buffer either", "Layer.forward")
def stays_as_it_is(case: LayerCase) -> None:
    layer = case.one()
    for is_training in (True, False):
        parameters = _copies(dict(layer.named_parameters()))
        buffers = _copies(dict(layer.named_buffers()))
        layer.train(is_training)(rows())
        kept = parameters if is_training else parameters | buffers
        now = dict(layer.named_parameters()) | dict(layer.named_buffers())
        changed = [name for name, value in kept.items() if not torch.equal(value, now[name])]
        mode = "training" if is_training else "eval mode"
        demand(not changed, f"{', '.join(changed)} changed in {mode}")


@promise("its input is for reading: the stack still adds it to the output", "Layer.forward")
def leaves_its_input_alone(case: LayerCase) -> None:
    for is_training in (True, False):
        x = rows()
        case.one().train(is_training)(x)
        demand(torch.equal(x, rows()), "the input is another one afterwards")


@promise("parameter groups hold the layer's own parameters, none twice", "Layer.parameter_groups")
def groups_its_own_parameters(case: LayerCase) -> None:
    (layer,) = case.build()
    own = {id(parameter) for parameter in layer.parameters()}
    seen: set[int] = set()
    for group in layer.parameter_groups():
        demand(isinstance(group, ParameterGroup), f"{group!r} among them")
        for parameter in group.parameters:
            shape = tuple(parameter.shape)
            demand(id(parameter) in own, f"one of shape {shape} that is not the layer's")
            demand(id(parameter) not in seen, f"one of shape {shape} twice")
            seen.add(id(parameter))


@promise("the patterns of what stays trained are strings", "Layer.train_only")
def names_what_stays_trained(case: LayerCase) -> None:
    (layer,) = case.build()
    found = layer.train_only()
    fine = isinstance(found, tuple) and all(isinstance(pattern, str) for pattern in found)
    demand(fine, f"{found!r}, no tuple of strings")


@promise("it learns: it can fit random targets, and gradient reaches all it has", "Layer.forward")
def learns(case: LayerCase) -> None:
    (layer,) = case.build()
    trained = [name for name, p in layer.named_parameters() if p.requires_grad]
    if not trained:
        return
    first, least, reached = _fitted(layer)
    missed = ", ".join(name for name in trained if name not in reached)
    demand(not missed, f"no gradient ever reaches {missed}")
    demand(
        least <= LEARNT * first,
        f"on {N_ROWS} rows the squared error falls from {first:.3g} to {least:.3g} in "
        f"{N_UPDATES} updates, not to {LEARNT:.0%}",
    )


@promise("it begins at zero, from where it learns, or stays as it is", "Layer.begin_at_zero")
def begins_at_zero(case: LayerCase) -> None:
    layer = case.one()
    before = _copies(layer.state_dict())
    layer.begin_at_zero()
    now = layer.state_dict()
    changed = [name for name, value in before.items() if not torch.equal(value, now[name])]
    if not changed:
        return
    for is_training in (True, False):
        y = layer.train(is_training)(rows(seed=5))
        largest = float(y.detach().abs().max())
        what = f"{', '.join(changed)} changed, and the output is still up to {largest:.2g}"
        demand(largest < 1e-6, what)
    _, _, reached = _fitted(layer, n_updates=1)
    demand(bool(reached), "afterwards no gradient reaches any parameter, so it cannot learn")


def _fitted(layer: Layer, n_updates: int = N_UPDATES) -> tuple[float, float, set[str]]:
    """Fit random targets.

    :returns: the first loss, the least one, and the parameters that gradient reached.
    """
    x, target = rows(seed=1), rows(seed=2)
    optimizer = torch.optim.Adam([p for p in layer.parameters() if p.requires_grad], lr=0.01)
    losses: list[float] = []
    reached: set[str] = set()
    layer.train()
    for _ in range(n_updates):
        loss = nn.functional.mse_loss(layer(x), target)
        losses.append(loss.item())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        reached |= {n for n, p in layer.named_parameters() if p.grad is not None and p.grad.any()}
        optimizer.step()
    return losses[0], min(losses), reached


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


PROMISES = (
    builds_a_layer_a_position,
    is_built_the_same_under_a_seed,
    goes_where_there_is_a_place,
    keeps_shape_and_type,
    runs_under_autocast,
    keeps_rows_apart,
    repeats_under_a_seed,
    stays_as_it_is,
    leaves_its_input_alone,
    groups_its_own_parameters,
    names_what_stays_trained,
    learns,
    begins_at_zero,
)
