"""Which options of a memory are accepted, and which are refused."""

from __future__ import annotations

import pytest
from xlm_pkm import xlm_layers
from xlm_pkm.layer import ProductKeyMemory

from xlm_plugins import OptionError


@pytest.mark.parametrize(
    ("values", "allowed", "way_out"),
    [
        ({"heads": 0}, "at least 1", ""),
        ({"k-dim": 7}, "even", "--pkm.k-dim 8, or whole keys: --pkm.flat"),
        ({"knn": 9, "n-keys": 8}, "1 to 8", "--pkm.n-keys 9"),
        ({"knn": 9, "n-keys": 8, "flat": True}, "1 to 8", "--pkm.n-keys 9"),
        ({"modulo-size": 0}, "at least 1", ""),
        ({"modulo-size": 65, "n-keys": 8, "knn": 8}, "1 to 64", "fewer rows"),
        ({"modulo-size": 9, "n-keys": 8, "knn": 8, "flat": True}, "1 to 8", "fewer rows"),
        ({"temperature": 0.0}, "more than 0", ""),
        ({"query-hidden": [64, 0]}, "at least 1", ""),
        ({"keys-init": "normal"}, "uniform, gaussian", ""),
        ({"value-schedule": "linear"}, "constant, run", ""),
        ({"normalize-query": True, "qk-norm": True}, "one of them", "--pkm.normalize-query"),
        ({"score-subtract": "min"}, "sum or none", "--pkm.score-norm sum"),
        ({"score-norm": "sum"}, "start from 0", "--pkm.score-subtract min"),
        ({"score-norm": "sum", "score-subtract": "mean"}, "start from 0", "score-subtract min"),
        ({"score-norm": "none", "temperature": 2.0}, "softmax only", "--pkm.temperature"),
        ({"score-norm": "none", "score-subtract": "min", "knn": 1}, "at least 2", "--pkm.knn 2"),
    ],
    ids=str,
)
def test_impossible_options_are_refused(
    values: dict[str, object], allowed: str, way_out: str
) -> None:
    (component,) = xlm_layers()
    with pytest.raises(OptionError, match="pkm") as error:
        component.options_from(values)
    assert allowed in error.value.expected
    assert way_out in error.value.remedy


def test_the_component_names_the_class() -> None:
    (component,) = xlm_layers()
    assert component.target == f"{ProductKeyMemory.__module__}:{ProductKeyMemory.__name__}"
    assert component.options().n_keys == 128
    assert ProductKeyMemory.default_position(4) == "2"
