"""What a layer promises on its own."""

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
"""Share of its initial loss that a layer may still have after it was fitted to random targets."""


@dataclass(frozen=True)
class LayerCase:
    """A layer under test."""

    component: Component
    options: Any

    def build(self, n_positions: int = 1, seed: int = 0) -> list[Layer]:
        """The layers as the model builder makes them; the same for the same seed."""
        torch.manual_seed(seed)
        layers: list[Layer] = self.component.load().build(self.options, DIM, n_positions)
        return layers

    def one(self) -> Layer:
        """A layer that has seen a training batch, so that its running statistics have changed."""
        (layer,) = self.build()
        with torch.no_grad():
            layer.train()(rows(seed=9))
        return layer


def rows(n: int = N_ROWS, seed: int = 0) -> Tensor:
    """Packed states, scaled as after LayerNorm.  Shape: (n, DIM)"""
    return torch.randn(n, DIM, generator=torch.Generator().manual_seed(seed))


def evaluated(layer: Layer, x: Tensor) -> Tensor:
    """The output of a layer in eval mode."""
    with torch.no_grad():
        y: Tensor = layer.eval()(x)
    return y


def apart(one: Tensor, other: Tensor) -> float:
    """The largest difference, relative to the largest value.  0 for empty tensors."""
    if not one.numel():
        return 0.0
    return float((one - other).abs().max() / one.abs().max().clamp(min=1.0))


@promise("a selection of n positions builds n layers, which are different objects", "Layer.build")
def builds_a_layer_a_position(case: LayerCase) -> None:
    for n_positions in (1, 2):
        layers = case.build(n_positions)
        wrong = [layer for layer in layers if not isinstance(layer, Layer)]
        demand(not wrong, f"{wrong} among them")
        n = len({id(layer) for layer in layers})
        demand(n == n_positions == len(layers), f"{n} layers for {n_positions} positions")


@promise("with the same seed the layers are the same", "Layer.build")
def is_built_the_same_under_a_seed(case: LayerCase) -> None:
    for one, other in zip(case.build(2), case.build(2), strict=True):
        twin = other.state_dict()
        for name, tensor in one.state_dict().items():
            demand(torch.equal(tensor, twin[name]), f"{name} is different the second time")


@promise("the default position exists in a stack of any depth", "Layer.default_position")
def goes_where_there_is_a_place(case: LayerCase) -> None:
    for n_layers in range(1, 13):
        text = case.component.load().default_position(n_layers)
        fine = all(position.index < n_layers for position in parse_positions(text))
        demand(fine, f"{text!r} for a stack of {n_layers} layers, counted from 0")


@promise("for any number of rows, shape and type are kept, and values finite", "Layer.forward")
def keeps_shape_and_type(case: LayerCase) -> None:
    (layer,) = case.build()
    for is_training in (True, False):
        for n in (N_ROWS, 1, 0):
            y = layer.train(is_training)(rows(n))
            where = f"for {n} rows in {'training' if is_training else 'eval mode'}"
            demand(y.shape == (n, DIM), f"{where}: shape {tuple(y.shape)}, not {(n, DIM)}")
            demand(y.dtype == torch.float32, f"{where}: {y.dtype}, not float32")
            demand(bool(y.isfinite().all()), f"{where}: values that are not finite")


@promise("it runs under autocast to bf16, as `--precision bf16` does", "Layer.forward")
def runs_under_autocast(case: LayerCase) -> None:
    (layer,) = case.build()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer.train()(rows())
        loss = y.float().square().sum()
    demand(bool(y.isfinite().all()), "values that are not finite")
    if loss.requires_grad:
        loss.backward()


@promise("in eval mode rows do not affect each other", "Layer.forward")
def keeps_rows_apart(case: LayerCase) -> None:
    layer, x = case.one(), rows()
    together = evaluated(layer, x)
    for some in (slice(3, 4), slice(5, 20)):
        alone = evaluated(layer, x[some])
        distance = apart(alone, together[some])
        demand(
            distance < TOLERANCE,
            f"rows alone differ by {distance:.2g} from the same rows among others",
        )
    order = torch.arange(N_ROWS - 1, -1, -1)
    distance = apart(evaluated(layer, x[order]), together[order])
    demand(distance < TOLERANCE, f"rows in another order differ by {distance:.2g}")


@promise("nothing is random in eval mode, nor in training with a fixed seed", "Layer.forward")
def repeats_under_a_seed(case: LayerCase) -> None:
    for is_training in (True, False):
        outputs = []
        for seed in (1, 1 if is_training else 2):
            layer = case.one().train(is_training)
            torch.manual_seed(seed)
            outputs.append(layer(rows()))
        mode = "training, with one seed" if is_training else "eval mode"
        demand(torch.equal(*outputs), f"two forward passes in {mode} differ")


@promise("a forward pass changes no parameters, and in eval mode no buffers", "Layer.forward")
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


@promise("its input is not modified: the stack adds it to the output", "Layer.forward")
def leaves_its_input_alone(case: LayerCase) -> None:
    for is_training in (True, False):
        x = rows()
        case.one().train(is_training)(x)
        demand(torch.equal(x, rows()), "the input is different afterwards")


@promise("parameter groups contain the layer's parameters, none twice", "Layer.parameter_groups")
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


@promise("the patterns of parameters to train are strings", "Layer.train_only")
def names_what_stays_trained(case: LayerCase) -> None:
    (layer,) = case.build()
    found = layer.train_only()
    fine = isinstance(found, tuple) and all(isinstance(pattern, str) for pattern in found)
    demand(fine, f"{found!r}, not a tuple of strings")


@promise("it can fit random targets, and gradients reach all its parameters", "Layer.forward")
def learns(case: LayerCase) -> None:
    (layer,) = case.build()
    trained = [name for name, p in layer.named_parameters() if p.requires_grad]
    if not trained:
        return
    first, best, reached = _fitted(layer)
    missed = ", ".join(name for name in trained if name not in reached)
    demand(not missed, f"no gradient ever reaches {missed}")
    demand(
        best <= LEARNT * first,
        f"for {N_ROWS} rows the squared error falls from {first:.3g} to {best:.3g} in "
        f"{N_UPDATES} updates, not to {LEARNT:.0%}",
    )


@promise("it starts at zero and can learn, or is unchanged", "Layer.begin_at_zero")
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
        what = f"{', '.join(changed)} changed, but outputs are still as large as {largest:.2g}"
        demand(largest < 1e-6, what)
    _, _, reached = _fitted(layer, n_updates=1)
    demand(bool(reached), "no gradient reaches any parameter afterwards, so it cannot learn")


def _fitted(layer: Layer, n_updates: int = N_UPDATES) -> tuple[float, float, set[str]]:
    """Fit random targets.

    :returns: the first loss, the smallest one, and the parameters that gradients reached.
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
