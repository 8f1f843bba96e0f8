"""The layer: the contract, and its size."""

from __future__ import annotations

from xlm_plugins.testing import check_layer

from xlm_example import ExampleLayerOptions
from xlm_example.layer import ExampleLayer


def test_the_contract() -> None:
    check_layer("example-layer", width=8)


def test_the_width_determines_the_size() -> None:
    layer = ExampleLayer(ExampleLayerOptions(width=3), dim=10)
    assert sum(parameter.numel() for parameter in layer.parameters()) == 10 * 3 + 3 + 3 * 10 + 10
