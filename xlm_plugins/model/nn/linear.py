"""Linear layers by oneDNN on a CPU, if torch has it; otherwise torch's own.

For fp32 products torch calls MKL, which uses half of the vector width of AMD processors: on a Zen 5
core oneDNN reaches 200 GFLOP/s and MKL 90, with the same fp32 arithmetic.  torch has no public way
to ask for oneDNN; the operator used here is the one that its compiler emits.

oneDNN compiles a kernel for each new shape, which takes longer than one product saves.  So it is
used for recurring row counts only, whose kernels are reused: windows of a stream and decoding steps
have them, and packed sentences are padded with rows of zeros to the next one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

ROWS, FEW_ROWS = 64, 512
"""Recurring row counts: multiples of `ROWS` and, without gradient, any up to `FEW_ROWS`."""
BLOCK, SMALLEST = 128, 256
"""Other row counts from `SMALLEST` on are padded to a multiple of `BLOCK`."""

_BY_ONEDNN = hasattr(torch.ops.mkldnn, "_linear_pointwise")


class Linear(nn.Linear):
    """`torch.nn.Linear`, computed by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """Shape: (..., in_features) -> (..., out_features)"""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`functional.linear`, by whichever library is faster.

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
    """Add ``left.t() @ right`` to a tensor in place: the gradient of a weight.

    :param to: shape (n_left, n_right).
    :param left: shape (n_rows, n_left).
    :param right: shape (n_rows, n_right).
    """
    if _suits(left, right) and to.dtype == torch.float32:
        to += _crossed(_padded(left), _padded(right))
    else:
        to.addmm_(left.t(), right)


class _Linear(torch.autograd.Function):
    """A product with a gradient, which oneDNN's operator lacks.

    Whichever library computes the product, it is one node of the graph.  So gradients arrive in the
    same order for every batch, as needed by ZeRO 2 and 3, which sum over ranks in order of arrival.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows = x.flatten(0, -2)
        padded = _padded(rows)
        ctx.save_for_backward(padded, weight)
        ctx.shape = x.shape
        return _product(padded, weight, bias)[: len(rows)].view(*x.shape[:-1], len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        rows = gradient.flatten(0, -2)
        padded = _padded(rows)
        return (
            _product(padded, weight.t())[: len(rows)].view(ctx.shape) if wants_x else None,
            _crossed(padded, x) if wants_weight else None,
            rows.sum(0) if wants_bias else None,
        )


def _suits(x: Tensor, other: Tensor) -> bool:
    """Whether oneDNN can compute the product and is faster: fp32 on a CPU."""
    return (
        _BY_ONEDNN
        and x.device.type == "cpu"
        and x.dtype == other.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
    )


def _padded(rows: Tensor) -> Tensor:
    """The rows, padded with rows of zeros to a recurring count; zeros add nothing to sums."""
    if len(rows) < SMALLEST or len(rows) % ROWS == 0:
        return rows
    return functional.pad(rows, (0, 0, 0, -len(rows) % BLOCK))


def _recurs(rows: Tensor) -> bool:
    return len(rows) > 0 and len(rows) % ROWS == 0


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``rows @ weight.t() + bias``, by whichever library is faster."""
    if _recurs(rows):
        return _by_onednn(rows, weight, bias)
    return functional.linear(rows, weight, bias)


def _crossed(left: Tensor, right: Tensor) -> Tensor:
    """``left.t() @ right``; oneDNN is faster if the narrower one is the left factor."""
    if not _recurs(left):
        return left.t() @ right
    if left.shape[1] <= right.shape[1]:
        return _by_onednn(left.t(), right.t())
    return _by_onednn(right.t(), left.t()).t()


def _by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result
