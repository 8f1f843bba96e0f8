"""Linear layers on a CPU by oneDNN, where torch has it; elsewhere as torch does them.

For fp32 products torch asks MKL, which uses half of the vector width of AMD's processors: on a
Zen 5 core oneDNN makes 200 GFLOP/s where MKL makes 90, with the same fp32 arithmetic.  torch has
no public way to ask for it; the operator is the one that its own compiler writes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

ROWS, FEW_ROWS = 64, 512
"""Numbers of rows that come again: multiples of the one, and without gradient up to the other."""

_BY_ONEDNN = hasattr(torch.ops.mkldnn, "_linear_pointwise")


class Linear(nn.Linear):
    """`torch.nn.Linear` by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """Shape: (..., in_features) -> (..., out_features)"""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As `functional.linear`.

    :param x: shape (..., n_in).
    :param weight: shape (n_out, n_in).
    :param bias: shape (n_out,).
    :returns: shape (..., n_out).
    """
    if not _suits(x, weight):
        return functional.linear(x, weight, bias)
    if not torch.is_grad_enabled():
        return _product(x, weight, bias)
    result: Tensor = _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return result


def add_product(to: Tensor, left: Tensor, right: Tensor) -> None:
    """Add ``left.t() @ right`` to a tensor: what rows bring to a weight's gradient.

    :param to: shape (n_left, n_right).
    :param left: shape (n_rows, n_left).
    :param right: shape (n_rows, n_right).
    """
    if _suits(left, right) and to.dtype == torch.float32:
        to += _crossed(left, right)
    else:
        to.addmm_(left.t(), right)


class _Linear(torch.autograd.Function):
    """oneDNN's product; its operator has no gradient of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        rows = gradient.flatten(0, -2)
        return (
            _product(gradient, weight.t()) if wants_x else None,
            _crossed(rows, x.flatten(0, -2)) if wants_weight else None,
            rows.sum(0) if wants_bias else None,
        )


def _suits(x: Tensor, other: Tensor) -> bool:
    """Whether oneDNN can make the product and is the faster one: fp32 on a CPU."""
    return (
        _BY_ONEDNN
        and x.device.type == "cpu"
        and x.dtype == other.dtype == torch.float32
        and x.numel() > 0  # it refuses none
        and not torch.is_autocast_enabled("cpu")
        and _comes_again(x.numel() // x.shape[-1])
    )


def _comes_again(n_rows: int) -> bool:
    """Whether a number of rows is one that others have too.

    oneDNN compiles a kernel for each new shape, which takes longer than the product saves: windows
    of a stream and the steps of decoding have shapes that come again, packed sentences have not.
    """
    return n_rows % ROWS == 0 or (n_rows <= FEW_ROWS and not torch.is_grad_enabled())


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


def _crossed(left: Tensor, right: Tensor) -> Tensor:
    """``left.t() @ right``; oneDNN is quicker with the narrower one in the rows."""
    if left.shape[1] <= right.shape[1]:
        return _product(left.t(), right.t())
    return _product(right.t(), left.t()).t()
