"""From a description to a model: the layers of one selection are built together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from xlm_plugins.config.model import ModelOptions
from xlm_plugins.contracts.batch import Vocabulary
from xlm_plugins.contracts.layer import Layer
from xlm_plugins.core.registry import Component
from xlm_plugins.core.selection import parse_positions
from xlm_plugins.model.description import ModelDescription, PlacedLayer
from xlm_plugins.model.model import Model
from xlm_plugins.model.weights import load_tensors, load_weights, named_weights, save_tensors
from xlm_plugins.training.warm_start.copy_weights import InitReport, begin_at_zero

SHAPE = ModelOptions(dim=8, n_layers=3, n_heads=2)
ROLES = {role: i for i, role in enumerate(("bos", "eos", "pad", "unk", "mask", "sep"))}


@dataclass(frozen=True)
class TableOptions:
    """Options that make selections differ."""

    width: int = 4


class SharedTable(Layer):
    """A layer whose table is shared by all positions of a selection."""

    def __init__(self, options: TableOptions, dim: int) -> None:
        super().__init__(options, dim)
        self.own = nn.Linear(dim, options.width)
        self.table = nn.Parameter(torch.randn(options.width, dim))

    @classmethod
    def build(cls, options: TableOptions, dim: int, n_positions: int) -> list[Layer]:
        layers = [cls(options, dim) for _ in range(n_positions)]
        for layer in layers[1:]:
            layer.table = layers[0].table
        return list(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.own(x) @ self.table

    def begin_at_zero(self) -> None:
        with torch.no_grad():
            self.table.zero_()


@pytest.fixture
def component(monkeypatch: pytest.MonkeyPatch) -> Component:
    monkeypatch.setattr(Component, "load", lambda self: SharedTable)
    return Component("table", "x:Y", TableOptions, kind="layer", distribution="xlm-table")


def build(*placed: PlacedLayer) -> Model:
    torch.manual_seed(0)
    vocabulary = Vocabulary(20, ROLES, tuple(range(6)))
    description = ModelDescription(SHAPE, vocabulary, {"en": 0}, ("encoder",), placed)
    return description.build_model({})


def place(component: Component, where: str, width: int = 4) -> list[PlacedLayer]:
    return [PlacedLayer(p, component, TableOptions(width)) for p in parse_positions(where)]


def test_the_layers_of_one_selection_may_share_and_others_do_not(component: Component) -> None:
    first, other, second = (
        *place(component, "0"), *place(component, "1", width=5), *place(component, "2+")
    )  # fmt: skip
    layers = build(first, other, second).layers_by_position
    shared, alone, again = (layers[each.position] for each in (first, other, second))
    assert shared.table is again.table
    assert shared.own is not again.own
    assert alone.table is not shared.table
    assert {layer.name for layer in layers.values()} == {"table"}


def test_a_shared_table_is_saved_once_and_shared_again(
    component: Component, tmp_path: Path
) -> None:
    placed = place(component, "0,2+")
    model = build(*placed)
    tables = [name for name in named_weights(model) if name.endswith(".table")]
    assert tables == ["encoder.layers.0.feed_forward.table"]
    save_tensors(tmp_path / "weights", named_weights(model))
    again = build(*placed)
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
    load_weights(again, load_tensors(tmp_path / "weights"), "the file")
    first, second = again.layers_by_position.values()
    assert first.table is second.table
    assert torch.equal(first.table, model.layers_by_position[placed[0].position].table)


def test_a_layer_begins_at_zero_only_where_all_of_it_is_new(component: Component) -> None:
    model = build(*place(component, "0,2+"))
    new = [name for name in named_weights(model) if ".0.feed_forward." in name]
    assert begin_at_zero(model, [name for name in new if not name.endswith(".own.bias")]) == []
    first, _ = model.layers_by_position.values()
    assert first.table.any()
    at_zero = begin_at_zero(model, [*new, "encoder.layers.2.after.own.weight"])
    assert at_zero == ["table at enc.0"]
    assert not first.table.any()
    report = InitReport("there", at_zero=at_zero)
    assert report.lines()[-1] == "  new layers, adding nothing at first: table at enc.0"
