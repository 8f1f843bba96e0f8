"""The chunked cross-entropy equals torch's, in value and gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from xlm_plugins.config.model import ModelOptions
from xlm_plugins.model.nn import output as output_module
from xlm_plugins.model.nn.output import CHUNK_ROWS, Output, rows_per_chunk

DIM, VOCABULARY_SIZE = 8, 50
OPTIONS = ModelOptions(dim=DIM)


@pytest.fixture
def layer() -> Output:
    torch.manual_seed(1)
    return Output(OPTIONS, VOCABULARY_SIZE, None)


def inputs(n_rows: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(2)
    states = torch.randn(n_rows, DIM, requires_grad=True)
    return states, torch.randint(VOCABULARY_SIZE, (n_rows,))


def naive(layer: Output, states: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(
        functional.linear(states, layer.weight, layer.bias), targets, reduction="sum"
    )


@pytest.mark.parametrize("rows", [1, 3, 7, 100])
def test_equals_torch_in_value_and_gradient(
    layer: Output, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_module, "rows_per_chunk", lambda *_: rows)
    states, targets = inputs(7)
    wanted = [states, layer.weight, layer.bias]
    result, expected = layer(states, targets), naive(layer, states, targets)
    torch.testing.assert_close(result.loss, expected)
    assert result.n_targets == 7
    assert result.n_correct == (layer(states).argmax(1) == targets).sum()
    torch.testing.assert_close(
        torch.autograd.grad(0.3 * result.loss, wanted),
        torch.autograd.grad(0.3 * expected, wanted),
    )


def test_counts_correct_choices(layer: Output) -> None:
    states, targets = inputs(40)
    best = layer(states).argmax(1)
    targets[:15] = best[:15]
    targets[15:] = (best[15:] + 1) % VOCABULARY_SIZE
    assert layer(states, targets).n_correct == 15


def test_tied_weight_gets_both_gradients() -> None:
    tokens = torch.nn.Embedding(VOCABULARY_SIZE, DIM)
    layer = Output(OPTIONS, VOCABULARY_SIZE, tokens.weight)
    assert layer.weight is tokens.weight
    ids, targets = torch.tensor([1, 2, 3]), torch.tensor([4, 5, 1])
    (ours,) = torch.autograd.grad(layer(tokens(ids), targets).loss, [tokens.weight])
    (expected,) = torch.autograd.grad(naive(layer, tokens(ids), targets), [tokens.weight])
    torch.testing.assert_close(ours, expected)


def test_a_dense_layer_goes_before_as_in_roberta() -> None:
    torch.manual_seed(1)
    layer = Output(ModelOptions(dim=DIM, output_dense=True), VOCABULARY_SIZE, None)
    torch.nn.init.normal_(layer.norm.weight)
    states, targets = inputs(7)
    dense = functional.gelu(functional.linear(states, layer.dense.weight, layer.dense.bias))
    normed = functional.layer_norm(dense, (DIM,), layer.norm.weight, layer.norm.bias, 1e-12)
    expected = functional.linear(normed, layer.weight, layer.bias)
    torch.testing.assert_close(layer(states), expected)
    torch.testing.assert_close(layer(states, targets).loss, naive(layer, normed, targets))


def test_no_rows_give_zero_with_a_graph(layer: Output) -> None:
    states, targets = inputs(0)
    result = layer(states, targets)
    result.loss.backward()
    assert result.loss == result.n_correct == result.n_targets == 0
    assert layer.weight.grad is not None
    assert not layer.weight.grad.any()
    assert states.grad is not None


def test_without_gradient_none_is_computed(layer: Output) -> None:
    states, targets = inputs(5)
    with torch.no_grad():
        loss = layer(states, targets).loss
    assert not loss.requires_grad
    torch.testing.assert_close(loss, naive(layer, states, targets))


def test_autocast_keeps_the_loss_and_its_sums_in_fp32(layer: Output) -> None:
    states, targets = inputs(300)
    wanted = [states, layer.weight, layer.bias]
    with torch.autocast("cpu", torch.bfloat16):
        result = layer(states, targets)
        assert layer(states).dtype == torch.bfloat16
    assert result.loss.dtype == torch.float32
    torch.testing.assert_close(result.loss, naive(layer, states, targets), rtol=1e-2, atol=0)
    ours = torch.autograd.grad(result.loss, wanted)
    expected = torch.autograd.grad(naive(layer, states, targets), wanted)
    for gradient, exact in zip(ours, expected, strict=True):
        assert gradient.dtype == torch.float32
        assert (gradient - exact).norm() < 0.01 * exact.norm()


def test_weights_in_bf16_get_gradients_in_bf16(layer: Output) -> None:
    states, targets = inputs(9)
    layer.bfloat16()
    result = layer(states.detach().bfloat16(), targets)
    result.loss.backward()
    assert result.loss.dtype == torch.float32
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("vocabulary_size", [100, 7_965, 95_000, 1_000_000])
def test_chunks_are_bounded(vocabulary_size: int) -> None:
    rows = rows_per_chunk(vocabulary_size, "cpu")
    assert rows % CHUNK_ROWS == 0
    assert CHUNK_ROWS <= rows <= max(CHUNK_ROWS, (1 << 21) // vocabulary_size)
