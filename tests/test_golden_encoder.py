"""The encoder computes what the reference implementation computed from the same weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from xlm_plugins.core.batch import Batch
from xlm_plugins.core.contracts import Layer
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.selection import Position
from xlm_plugins.model.config import ModelOptions
from xlm_plugins.model.root import Model

TOLERANCE = {"rtol": 0.0, "atol": 1e-5}
OPTIONS = ModelOptions(dim=64, n_layers=2, n_heads=4)
PAD = 2

Golden = dict[str, Any]
Rename = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


def memory(params: Golden) -> Layer:
    """The product-key memory that the golden weights belong to."""
    component = Plugins.discover().get("layer", "pkm")
    sizes = {key: params[f"mem_{key}"] for key in ("heads", "knn", "n_keys", "k_dim")}
    batchnorm = {"query_batchnorm": params["mem_query_batchnorm"]}
    layer: Layer = component.load()(component.options_from(sizes | batchnorm), OPTIONS.dim)
    return layer


@pytest.fixture(scope="module")
def rename(reference_weights: Rename) -> Rename:
    """Name the reference's weights, or gradients, as our encoder does, memories and all."""

    def rename(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            name.replace("query_proj.query_mlps.0", "query").replace("values.weight", "values"): x
            for name, x in reference_weights(theirs).items()
        }

    return rename


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    return torch.load(shared / "golden" / "encoder.pt", weights_only=True)


@pytest.fixture(scope="module")
def golden_pkm(shared: Path) -> Golden:
    return torch.load(shared / "golden" / "encoder_pkm.pt", weights_only=True)


def model_of(golden: Golden, rename: Rename) -> Model:
    layers: dict[Position, Layer] = {}
    params = golden["params"]
    for index, kind in params["mem_enc_positions"] if params["use_memory"] else ():
        layers[Position("encoder", index, kind == "after")] = memory(params)
    model = Model(OPTIONS, 200, 2, {"encoder"}, PAD, layers).eval()
    model.encoder.load_state_dict(rename(golden["state_dict"]))
    return model


def packed(case: Golden) -> tuple[Batch, Tensor]:
    """The case without padding, and which of its (batch, length) cells hold a token."""
    real = torch.arange(len(case["x"])) < case["lengths"][:, None]
    positions = torch.arange(len(case["x"])).expand(real.shape)
    if "positions" in case:
        positions = case["positions"].T
    predicted = torch.empty(0, dtype=torch.long)
    targets = predicted
    if "pred_mask" in case:
        predicted = case["pred_mask"].T[real].nonzero()[:, 0]
        # The reference lists targets time first; ours go sequence by sequence.
        grid = torch.full_like(case["x"], -1)
        grid[case["pred_mask"]] = case["y"]
        targets = grid.T[real][predicted]
    offsets = functional.pad(case["lengths"].cumsum(0), (1, 0))
    batch = Batch(
        tokens=case["x"].T[real],
        positions=positions[real],
        languages=case["langs"].T[real],
        offsets=offsets,
        predicted=predicted,
        targets=targets,
        sample_ids=torch.arange(len(case["lengths"])),
    )
    return batch, real


def scores_by_row(case: Golden, real: Tensor) -> Tensor:
    """The case's scores, sequence by sequence."""
    grid = torch.zeros(*case["x"].shape, case["scores"].shape[1])
    grid[case["pred_mask"]] = case["scores"]
    return grid.transpose(0, 1)[case["pred_mask"].T & real]


@pytest.mark.parametrize("which", ["golden", "golden_pkm"])
@pytest.mark.parametrize("name", ["mlm", "clm"])
def test_states_scores_and_loss(
    name: str, which: str, rename: Rename, request: pytest.FixtureRequest
) -> None:
    golden = request.getfixturevalue(which)
    model, case = model_of(golden, rename), golden["cases"][name]
    batch, real = packed(case)
    with torch.no_grad():
        states = model.encoder(batch, causal=name == "clm")
        wanted = model.encoder(batch, causal=name == "clm", at=batch.predicted)
        scores = model.encoder.scores(wanted)
        loss = model.encoder.loss(wanted, batch.targets)
    torch.testing.assert_close(states, case["hidden"].transpose(0, 1)[real], **TOLERANCE)
    torch.testing.assert_close(scores, scores_by_row(case, real), **TOLERANCE)
    torch.testing.assert_close(loss.loss / loss.n_targets, case["loss"], **TOLERANCE)
    assert loss.n_correct == (scores.argmax(1) == batch.targets).sum()


@pytest.mark.parametrize("which", ["golden", "golden_pkm"])
@pytest.mark.parametrize("name", ["reset", "noreset"])
def test_states_of_pairs(
    name: str, which: str, rename: Rename, request: pytest.FixtureRequest
) -> None:
    golden = request.getfixturevalue(which)
    model, case = model_of(golden, rename), golden["cases"]["tlm"][name]
    batch, real = packed(case)
    with torch.no_grad():
        states = model.encoder(batch)
    torch.testing.assert_close(states, case["hidden"].transpose(0, 1)[real], **TOLERANCE)


@pytest.mark.parametrize("which", ["golden", "golden_pkm"])
def test_gradients_of_mlm(which: str, rename: Rename, request: pytest.FixtureRequest) -> None:
    golden = request.getfixturevalue(which)
    model = model_of(golden, rename)
    batch, _ = packed(golden["cases"]["mlm"])
    states = model.encoder(batch, at=batch.predicted)
    loss = model.encoder.loss(states, batch.targets)
    (loss.loss / loss.n_targets).backward()
    expected = rename(golden["cases"]["grads_mlm"])
    ours = {name: weight.grad for name, weight in model.encoder.named_parameters()}
    assert set(ours) == set(expected)
    for name, gradient in expected.items():
        torch.testing.assert_close(ours[name], gradient, **TOLERANCE, msg=name)
