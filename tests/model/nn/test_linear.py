"""Linear layers by oneDNN compute what torch's do, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from xlm_plugins.model.nn.linear import Linear, add_product, linear


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape).to(dtype).requires_grad_()


@pytest.mark.parametrize(
    "shape", [(64, 6), (2, 32, 6), (7, 6), (300, 6), (3, 100, 6), (2, 5, 6), (0, 6), (1, 6)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("n_out", [3, 11])
def test_values_and_gradients_are_torchs(
    shape: tuple[int, ...], dtype: torch.dtype, n_out: int
) -> None:
    torch.manual_seed(1)
    tensors = numbers(*shape, dtype=dtype), numbers(n_out, 6, dtype=dtype), numbers(n_out)
    tensors = (*tensors[:2], tensors[2].detach().to(dtype).requires_grad_())
    wanted = functional.linear(*tensors)
    direction = torch.randn_like(wanted)
    expected = torch.autograd.grad(wanted, tensors, direction)
    found = linear(*tensors)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(torch.autograd.grad(found, tensors, direction), expected)
    with torch.no_grad():
        torch.testing.assert_close(linear(*tensors), wanted)
    # A gradient that is an expanded view, as that of a sum is.
    torch.testing.assert_close(
        torch.autograd.grad(linear(*tensors).sum(), tensors),
        torch.autograd.grad(functional.linear(*tensors).sum(), tensors),
    )


def test_frozen_parts_have_no_gradient() -> None:
    x, weight, bias = numbers(64, 6), numbers(3, 6).detach(), numbers(3)
    linear(x, weight, bias).sum().backward()
    assert weight.grad is None
    torch.testing.assert_close(bias.grad, torch.full((3,), 64.0))
    torch.testing.assert_close(x.grad, weight.sum(0).expand(64, 6))


def test_a_part_of_a_weight_and_no_bias() -> None:
    x, weight = numbers(64, 6), numbers(9, 6)
    torch.testing.assert_close(linear(x, weight[3:6]), x @ weight[3:6].t())
    torch.testing.assert_close(linear(x, weight[:6].t()[:6]), x @ weight[:6])


def test_autocast_is_left_to_torch() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert Linear(6, 3)(numbers(4, 6)).dtype == torch.bfloat16


@pytest.mark.parametrize(("n_left", "n_right"), [(3, 5), (5, 3)])
@pytest.mark.parametrize("n_rows", [128, 7, 0])
@torch.no_grad()
def test_a_product_over_rows_is_added(n_left: int, n_right: int, n_rows: int) -> None:
    to, left, right = numbers(n_left, n_right), numbers(n_rows, n_left), numbers(n_rows, n_right)
    expected = to + left.t() @ right
    add_product(to, left, right)
    torch.testing.assert_close(to, expected)
