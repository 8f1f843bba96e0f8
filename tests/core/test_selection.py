"""What users write to select objectives, layers, steps and weights."""

from __future__ import annotations

import pytest

from xlm_plugins.core.errors import OptionError
from xlm_plugins.core.selection import (
    LayerSelection,
    LossWeight,
    ObjectiveSelection,
    Position,
    parse_positions,
)


@pytest.mark.parametrize(
    ("text", "name", "steps", "points"),
    [
        ("tlm", "tlm", (), ((0, 1.0),)),
        ("mlm:en,zh_Hans", "mlm", ("en", "zh_Hans"), ((0, 1.0),)),
        ("bt:en-fr-en", "bt", ("en-fr-en",), ((0, 1.0),)),
        ("tlm:en-fr@0.5", "tlm", ("en-fr",), ((0, 0.5),)),
        ("ae@0:1,100000:0.1,300000:0", "ae", (), ((0, 1.0), (100000, 0.1), (300000, 0.0))),
        ("xlm-mlm/mlm:en", "xlm-mlm/mlm", ("en",), ((0, 1.0),)),
    ],
)
def test_objectives(text: str, name: str, steps: tuple[str, ...], points: tuple) -> None:
    selection = ObjectiveSelection.parse(text)
    assert (selection.name, selection.steps) == (name, steps)
    assert selection.weight.points == points


@pytest.mark.parametrize(
    "text", ["", "mlm:", "mlm@", "mlm@a", "mlm@1:2:3", "mlm@5:1,5:0", "mlm@9:1,3:0", "mlm en", "@1"]
)
def test_malformed_objectives_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="cannot be read"):
        ObjectiveSelection.parse(text)


def test_a_weight_is_linear_between_its_points_and_constant_outside() -> None:
    weight = LossWeight(((10, 1.0), (20, 0.0), (40, 2.0)))
    iterations = [0, 10, 15, 20, 30, 40, 1000]
    assert [weight.at(i) for i in iterations] == [1.0, 1.0, 0.5, 0.0, 1.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("text", "positions"),
    [
        ("pkm", ()),
        ("pkm:4", (Position("encoder", 4, False),)),
        ("pkm:4,7+", (Position("encoder", 4, False), Position("encoder", 7, True))),
        ("pkm:enc.0,dec.2+", (Position("encoder", 0, False), Position("decoder", 2, True))),
    ],
)
def test_layers(text: str, positions: tuple[Position, ...]) -> None:
    assert LayerSelection.parse(text).positions == positions


@pytest.mark.parametrize("text", ["pkm:", "pkm:x", "pkm:4,", "pkm:-1", "p k m", "pkm:mid.1"])
def test_malformed_layers_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="cannot be read"):
        LayerSelection.parse(text)


def test_one_place_twice_is_an_error() -> None:
    with pytest.raises(OptionError, match="twice"):
        LayerSelection.parse("pkm:4,enc.4")


def test_positions_are_written_as_in_flags() -> None:
    assert [str(p) for p in parse_positions("4,enc.7+,dec.2")] == ["enc.4", "enc.7+", "dec.2"]
