"""Dropout drops the right share, keeps the mean, and follows the seed."""

from __future__ import annotations

import pytest
import torch

from xlm_plugins.model.nn.dropout import Dropout


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_share_and_scale(probability: float) -> None:
    torch.manual_seed(1)
    dropped = Dropout(probability)(torch.ones(1_000, 301))
    kept = dropped[dropped != 0]
    assert (dropped == 0).float().mean().item() == pytest.approx(probability, abs=0.005)
    torch.testing.assert_close(
        kept, torch.full_like(kept, 1 / (1 - probability)), rtol=1e-3, atol=0
    )


def test_elements_are_dropped_independently_of_their_neighbours() -> None:
    torch.manual_seed(1)
    kept = (Dropout(0.5)(torch.ones(400_000)) != 0).double() - 0.5
    for shift in (1, 2, 3, 4, 8):
        assert abs((kept[shift:] * kept[:-shift]).mean().item()) < 0.002


def test_the_gradient_has_the_same_mask() -> None:
    x = torch.randn(5, 7, requires_grad=True)
    y = Dropout(0.4)(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad * x, y)


def test_follows_the_seed_and_the_mode() -> None:
    dropout, x = Dropout(0.5), torch.randn(10, 10)
    torch.manual_seed(3)
    first = dropout(x)
    assert not torch.equal(dropout(x), first)
    torch.manual_seed(3)
    assert torch.equal(dropout(x), first)
    assert dropout.eval()(x) is x
    assert Dropout(0.0)(x) is x


@pytest.mark.parametrize("shape", [(0, 4), (1,), (3, 5)])
def test_any_shape_and_type(shape: tuple[int, ...]) -> None:
    x = torch.ones(shape, dtype=torch.bfloat16)
    y = Dropout(0.1)(x)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)


def test_a_transposed_input_keeps_its_values() -> None:
    x = torch.randn(6, 4).t()
    y = Dropout(0.5)(x)
    torch.testing.assert_close(y[y != 0], 2 * x[y != 0])
