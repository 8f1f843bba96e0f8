"""The adaptive softmax's loss is the cross-entropy of its own log-probabilities."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from xlm_plugins.config.model import ModelOptions
from xlm_plugins.core.errors import OptionError
from xlm_plugins.model.nn.adaptive import AdaptiveOutput

OPTIONS = ModelOptions(dim=16, n_heads=2, adaptive_cutoffs=(8, 20))
SIZE = 50


@pytest.fixture
def layer() -> AdaptiveOutput:
    torch.manual_seed(1)
    return AdaptiveOutput(OPTIONS, SIZE)


def states(n_rows: int) -> Tensor:
    torch.manual_seed(2)
    return torch.randn(n_rows, OPTIONS.dim, requires_grad=True)


@pytest.mark.parametrize("most", [8, 20, SIZE])
def test_value_gradient_and_choices(layer: AdaptiveOutput, most: int) -> None:
    rows, targets = states(60), torch.arange(60) % most
    log_probs = layer(rows)
    torch.testing.assert_close(log_probs.exp().sum(1), torch.ones(60))
    expected = functional.nll_loss(log_probs, targets, reduction="sum")
    found = layer(rows, targets)
    torch.testing.assert_close(found.loss, expected)
    assert found.n_targets == 60
    assert found.n_correct == (log_probs.argmax(1) == targets).sum()
    wanted = [rows, *layer.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad(found.loss, wanted),
        torch.autograd.grad(expected, wanted, materialize_grads=True),
    )


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_about_the_same(layer: AdaptiveOutput, kind: torch.dtype) -> None:
    """DeepSpeed's fp16 converts the weights; autocast's bf16 only the layer's input."""
    rows, targets = states(60), torch.arange(60) % SIZE
    expected = layer(rows, targets).loss
    assert layer(rows.to(kind), targets).loss.dtype == torch.float32
    halved = layer.to(kind)(rows.to(kind), targets).loss
    assert halved.dtype == torch.float32
    torch.testing.assert_close(halved, expected, rtol=0.01, atol=0)


@pytest.mark.parametrize("n_rows", [0, 3])
def test_every_cluster_gets_a_gradient(layer: AdaptiveOutput, n_rows: int) -> None:
    layer(states(n_rows), torch.zeros(n_rows, dtype=torch.long)).loss.backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())


def test_cutoffs_lie_in_the_vocabulary_and_rise() -> None:
    with pytest.raises(OptionError, match="8, 20 go beyond the vocabulary of 20"):
        AdaptiveOutput(OPTIONS, 20)
    for cutoffs in ((20, 8), (0, 8), (8, 8)):
        with pytest.raises(OptionError, match="increasing token ids"):
            ModelOptions(adaptive_cutoffs=cutoffs)
