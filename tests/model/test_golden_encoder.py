"""An imported encoder computes what the reference implementation computed from the same weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from xlm_plugins.contracts.batch import Batch
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.interop.xlm.importing import import_xlm
from xlm_plugins.interop.xlm.weights import stack_weights
from xlm_plugins.model.bundle import Bundle

TOLERANCE = {"rtol": 0.0, "atol": 1e-5}

Golden = dict[str, Any]
BundleOf = Callable[[str], Bundle]


@pytest.fixture(scope="module")
def bundle_of(
    golden_checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> BundleOf:
    """The bundle of a checkpoint in the reference's own format."""
    plugins, folder = Plugins.discover(), tmp_path_factory.mktemp("imported")

    def bundle_of(name: str) -> Bundle:
        out = folder / name
        if not out.exists():
            import_xlm(golden_checkpoint(name), out, plugins)
        return Bundle.load(out, plugins)

    return bundle_of


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


WHICH = pytest.mark.parametrize("which", ["encoder", "encoder_pkm"])


@WHICH
@pytest.mark.parametrize("name", ["mlm", "clm"])
def test_states_scores_and_loss(
    name: str, which: str, bundle_of: BundleOf, golden_values: Callable[[str], Golden]
) -> None:
    model, case = bundle_of(which).model, golden_values(which)[name]
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


@WHICH
@pytest.mark.parametrize("name", ["reset", "noreset"])
def test_states_of_pairs(
    name: str, which: str, bundle_of: BundleOf, golden_values: Callable[[str], Golden]
) -> None:
    model, case = bundle_of(which).model, golden_values(which)["tlm"][name]
    batch, real = packed(case)
    with torch.no_grad():
        states = model.encoder(batch)
    torch.testing.assert_close(states, case["hidden"].transpose(0, 1)[real], **TOLERANCE)


@WHICH
def test_gradients_of_mlm(
    which: str, bundle_of: BundleOf, golden_values: Callable[[str], Golden]
) -> None:
    bundle, cases = bundle_of(which), golden_values(which)
    model, (batch, _) = bundle.model, packed(cases["mlm"])
    states = model.encoder(batch, at=batch.predicted)
    loss = model.encoder.loss(states, batch.targets)
    (loss.loss / loss.n_targets).backward()
    expected = stack_weights(cases["grads_mlm"], bundle.description.options, 2, "encoder")
    ours = {name: weight.grad for name, weight in model.named_parameters()}
    assert set(ours) == set(expected)
    for name, gradient in expected.items():
        torch.testing.assert_close(ours[name], gradient, **TOLERANCE, msg=name)
