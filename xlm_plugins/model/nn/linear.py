"""Linear layers on a CPU by oneDNN, where torch has it; elsewhere as torch does them.

For fp32 products torch asks MKL, which uses half of the vector width of AMD's processors: on a
Zen 5 core oneDNN makes 200 GFLOP/s where MKL makes 90, with the same fp32 arithmetic.  torch has
no public way to ask for it; the operator is the one that its own compiler writes.

oneDNN compiles a kernel for each new shape, which takes longer than one product saves.  So products
are made with numbers of rows that come again: windows of a stream and the steps of decoding have
them, and packed sentences get rows of zeros up to the next one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

ROWS, FEW_ROWS = 64, 512
"""Numbers of rows that come again: multiples of the one, and without gradient up to the other."""
BLOCK, SMALLEST = 128, 256
"""Other numbers are filled up to a multiple of the one, from the other on."""

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
    if not torch.is_grad_enabled() and 0 < x.numel() <= FEW_ROWS * x.shape[-1]:
        return _by_onednn(x, weight, bias)
    result: Tensor = _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return result


def add_product(to: Tensor, left: Tensor, right: Tensor) -> None:
    """Add ``left.t() @ right`` to a tensor: what rows bring to a weight's gradient.

    :param to: shape (n_left, n_right).
    :param left: shape (n_rows, n_left).
    :param right: shape (n_rows, n_right).
    """
    if _suits(left, right) and to.dtype == torch.float32:
        to += _crossed(_filled(left), _filled(right))
    else:
        to.addmm_(left.t(), right)


class _Linear(torch.autograd.Function):
    """A product with a gradient, which oneDNN's operator has not.

    Whatever makes the product, this is the one node of the graph: gradients come in one order for
    every batch, as ZeRO 2 and 3 need them to, which sum over ranks in the order of their coming.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows = x.flatten(0, -2)
        filled = _filled(rows)
        ctx.save_for_backward(filled, weight)
        ctx.shape = x.shape
        return _product(filled, weight, bias)[: len(rows)].view(*x.shape[:-1], len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        rows = gradient.flatten(0, -2)
        filled = _filled(rows)
        return (
            _product(filled, weight.t())[: len(rows)].view(ctx.shape) if wants_x else None,
            _crossed(filled, x) if wants_weight else None,
            rows.sum(0) if wants_bias else None,
        )


def _suits(x: Tensor, other: Tensor) -> bool:
    """Whether oneDNN can make the product and is the faster one: fp32 on a CPU."""
    return (
        _BY_ONEDNN
        and x.device.type == "cpu"
        and x.dtype == other.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
    )


def _filled(rows: Tensor) -> Tensor:
    """The rows, and rows of zeros up to a number that comes again; zeros add nothing to sums."""
    if len(rows) < SMALLEST or len(rows) % ROWS == 0:
        return rows
    return functional.pad(rows, (0, 0, 0, -len(rows) % BLOCK))


def _comes_again(rows: Tensor) -> bool:
    return len(rows) > 0 and len(rows) % ROWS == 0


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``rows @ weight.t() + bias``, by whichever is the quicker."""
    if _comes_again(rows):
        return _by_onednn(rows, weight, bias)
    return functional.linear(rows, weight, bias)


def _crossed(left: Tensor, right: Tensor) -> Tensor:
    """``left.t() @ right``; oneDNN is quicker with the narrower one in the rows."""
    if not _comes_again(left):
        return left.t() @ right
    if left.shape[1] <= right.shape[1]:
        return _by_onednn(left.t(), right.t())
    return _by_onednn(right.t(), left.t()).t()


def _by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result
