"""Every variant of the memory computes what the reference implementation computed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from xlm_pkm import ProductKeyOptions
from xlm_pkm.layer import ProductKeyMemory

TOLERANCE = {"rtol": 0.0, "atol": 1e-5}
DIM = 64

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "pq_default": {},
    "normq_min": {"normalize_query": True, "score_norm": "sum", "score_subtract": "min"},
    "mlp_bn": {"query_hidden": (48,), "query_batchnorm": True},
    "shuffle_modulo": {"shuffle_slots": True, "modulo_size": 100},
    "shared_keys": {"share_keys": True, "keys_init": "gaussian"},
    "flat": {"flat": True, "n_keys": 64},
}
PLAIN = {"heads": 2, "knn": 4, "n_keys": 16, "k_dim": 16, "query_batchnorm": False}

NAMES = {
    r"values\.weight": "values",
    r"query_proj\.query_mlps\.0\.(weight|bias)": r"query.\1",
    r"query_proj\.query_mlps\.0\.([01])\.": r"query_hidden.\1.",
    r"query_proj\.query_mlps\.0\.3\.": "query.",
    r"query_proj\.query_mlps\.0\.4\.": "query_norm.",
}
"""Names of the reference's weights -> ours; all others are equal."""


def renamed(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    ours = {}
    for name, value in theirs.items():
        for pattern, replacement in NAMES.items():
            name = re.sub(f"^{pattern}", replacement, name)
        ours[name] = value
    return ours


@pytest.fixture(scope="module")
def golden(golden_values: Callable[[str], Any]) -> dict[str, Any]:
    return golden_values("pkm")


def test_every_variant_is_tested(golden: dict[str, Any]) -> None:
    assert set(golden) == set(VARIANTS)


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_computes_what_the_reference_computes(golden: dict[str, Any], variant: str) -> None:
    case = golden[variant]
    layer = ProductKeyMemory(ProductKeyOptions(**{**PLAIN, **VARIANTS[variant]}), DIM).eval()
    layer.load_state_dict(renamed(case["state_dict"]))
    x = case["x"].flatten(0, 1)  # (length, batch, dim): a memory reads each token independently
    queries = layer.queries(x)
    torch.testing.assert_close(queries.reshape(case["query"].shape), case["query"], **TOLERANCE)
    scores, slots = layer.search(queries)
    raw = case["raw_scores"].view_as(scores)
    torch.testing.assert_close(scores, raw, **TOLERANCE)
    assert torch.equal(slots, case["used_indices"])
    torch.testing.assert_close(layer.weigh(scores), case["used_scores"], **TOLERANCE)
    torch.testing.assert_close(layer(x), case["output"].flatten(0, 1), **TOLERANCE)
