"""A decoder attends to the source of its sequence, and is a language model without one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from xlm_plugins.config.model import ModelOptions
from xlm_plugins.contracts.batch import Batch
from xlm_plugins.model.model import Model
from xlm_plugins.model.nn.transformer import Source

OPTIONS = ModelOptions(dim=16, n_layers=2, n_heads=4, dropout=0.0, max_positions=20)
SOURCES = [5, 2, 9, 3]
TARGETS = [3, 8, 1, 6]


def sequences(lengths: list[int], seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    n = sum(lengths)
    return Batch(
        tokens=torch.randint(5, 30, (n,), generator=generator),
        positions=torch.cat([torch.arange(length) for length in [0, *lengths]]),
        languages=torch.full((n,), seed),
        offsets=torch.tensor([0, *np.cumsum(lengths)]),
        predicted=torch.arange(n),
        targets=torch.randint(5, 30, (n,), generator=generator),
        sample_ids=torch.arange(len(lengths)),
    )


def batch_of(*which: int) -> Batch:
    """Some of four translations, in the given order."""
    parts = [sequences(TARGETS, 1), sequences(SOURCES, 0)]
    target, source = (_taken(part, which) for part in parts)
    return dataclasses.replace(target, source=source)


def _taken(batch: Batch, which: tuple[int, ...]) -> Batch:
    rows = [torch.arange(*batch.offsets[i : i + 2].tolist()) for i in which]
    at = torch.cat(rows)
    return Batch(
        tokens=batch.tokens[at],
        positions=batch.positions[at],
        languages=batch.languages[at],
        offsets=torch.tensor([0, *np.cumsum([len(row) for row in rows])]),
        predicted=torch.arange(len(at)),
        targets=batch.targets[at],
        sample_ids=batch.sample_ids[list(which)],
    )


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(1)
    return Model(OPTIONS, 30, 2, {"encoder", "decoder"}, 2)


def states(model: Model, batch: Batch, **more: Tensor) -> Tensor:
    source = Source(model.encoder(batch.source), batch.source.offsets)
    return model.decoder(batch, causal=True, source=source, **more)


def test_a_sequence_reads_its_own_source_only(model: Model) -> None:
    together = states(model, batch_of(0, 1, 2, 3)).split(TARGETS)
    for index, expected in enumerate(together):
        torch.testing.assert_close(states(model, batch_of(index)), expected)


def test_the_order_of_sequences_does_not_matter(model: Model) -> None:
    loss = model.predict_from_source(batch_of(0, 1, 2, 3))
    turned = model.predict_from_source(batch_of(2, 0, 3, 1))
    torch.testing.assert_close(turned.loss, loss.loss)
    assert turned.n_correct == loss.n_correct


def test_a_token_does_not_see_later_ones(model: Model) -> None:
    batch = batch_of(1)
    changed = dataclasses.replace(batch, tokens=batch.tokens.clone())
    changed.tokens[5] += 1
    before, after = states(model, batch), states(model, changed)
    torch.testing.assert_close(after[:5], before[:5])
    assert not torch.allclose(after[5:], before[5:])


def test_requested_rows_have_the_same_states_and_gradients(model: Model) -> None:
    batch, at = batch_of(0, 1, 2, 3), torch.tensor([2, 4, 9, 11, 17])
    seen = torch.randn(5, OPTIONS.dim)
    gradients = []
    for found in (states(model, batch, at=at), states(model, batch)[at]):
        model.zero_grad()
        (found * seen).sum().backward()
        learning = (p.grad for p in model.parameters() if p.grad is not None)
        gradients.append((found, *(gradient.clone() for gradient in learning)))
    for given, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(given, expected)


def test_without_a_source_it_is_a_language_model(model: Model) -> None:
    batch = dataclasses.replace(batch_of(0, 1), source=None)
    model.zero_grad()
    model.causal_stack.predict(batch, causal=True).loss.backward()
    assert model.decoder.layers[0].attention.qkv.weight.grad is not None
    assert model.decoder.layers[0].source_attention.qkv.weight.grad is None
    with pytest.raises(ValueError, match="no source"):
        model.predict_from_source(batch)


def test_every_parameter_learns_from_a_translation(model: Model) -> None:
    model.zero_grad()
    model.predict_from_source(batch_of(0, 1, 2, 3)).loss.backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert without == {"encoder.output.bias"}  # the encoder predicts nothing here


def test_an_empty_batch_has_a_loss_of_zero(model: Model) -> None:
    loss, n_targets, _ = model.predict_from_source(
        dataclasses.replace(sequences([], 1), source=sequences([], 0))
    )
    assert (loss.item(), n_targets.item()) == (0.0, 0)
