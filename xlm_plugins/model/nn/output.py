"""The output layer: states to scores over the vocabulary, and their cross-entropy.

Scores are large (rows x vocabulary) and needed only for the loss.  So the loss is computed in
chunks of rows, together with its gradient, and no chunk's scores outlive it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from xlm_plugins.config.model import ModelOptions
from xlm_plugins.contracts.batch import LossOutput
from xlm_plugins.model.nn.linear import Linear, add_product, linear

CHUNK_SCORES = {"cpu": 1 << 21, "cuda": 1 << 27}
"""Scores per chunk: on a CPU 8 MiB in fp32, where time is flat up to 64 MiB; a GPU needs larger
products and has the memory for them."""

CHUNK_ROWS = 128
"""Chunks have a multiple of this many rows: odd counts cost a CPU a quarter of its speed."""


class Output(nn.Module):
    """A linear layer from states to the vocabulary, with bias (docs/semantics.md, 4).

    With ``output_dense``, a dense layer, GELU and LayerNorm come before it, as in RoBERTa.

    :param vocabulary_size: number of scores per state.
    :param tied: the token embedding to share the weight with, or None for a separate weight.
        Shape: (vocabulary_size, dim)
    """

    def __init__(self, options: ModelOptions, vocabulary_size: int, tied: Tensor | None) -> None:
        super().__init__()
        self.dense: nn.Linear | None = None
        if options.output_dense:
            self.dense = Linear(options.dim, options.dim)
            self.norm = nn.LayerNorm(options.dim, options.layer_norm_eps)
        own = nn.Linear(options.dim, vocabulary_size)
        self.weight = own.weight if tied is None else tied
        self.bias = own.bias

    def forward(self, states: Tensor, targets: Tensor | None = None) -> Tensor | LossOutput:
        """Scores, or the loss against targets; both in `forward`, where ZeRO 3 gathers weights.

        :param states: shape (n, dim).
        :param targets: token ids.  Shape: (n,)
        :returns: scores, shape (n, vocabulary_size), or the summed cross-entropy, in fp32.
        """
        if self.dense is not None:
            states = self.norm(functional.gelu(self.dense(states)))
        if targets is None:
            return linear(states, self.weight, self.bias)
        wants_gradient = torch.is_grad_enabled()
        loss, n_correct = _CrossEntropy.apply(  # type: ignore[no-untyped-call]
            states, self.weight, self.bias, targets, _compute_type(states), wants_gradient
        )
        return LossOutput(loss, torch.tensor(len(targets), device=states.device), n_correct)


def _compute_type(states: Tensor) -> torch.dtype:
    """The type of matrix products: autocast's if it is on, else the states' own."""
    device = states.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else states.dtype


def rows_per_chunk(vocabulary_size: int, device: str) -> int:
    """Rows per chunk: a multiple of `CHUNK_ROWS`, for about `CHUNK_SCORES` scores."""
    rows = CHUNK_SCORES.get(device, CHUNK_SCORES["cpu"]) // vocabulary_size
    return max(1, rows // CHUNK_ROWS) * CHUNK_ROWS


class _CrossEntropy(torch.autograd.Function):
    """Linear layer and summed cross-entropy in one, in chunks of rows.

    The gradient of a sum depends on later operations by one factor only.  So `forward` computes
    it while a chunk's scores exist, and `backward` scales it.  Matrix products run in ``compute``,
    the softmax and the sums over chunks in fp32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        compute: torch.dtype,
        wants_gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        exact = torch.promote_types(compute, torch.float32)
        matrix, offset = weight.to(compute), bias.to(compute)
        gradient = _Gradient(states, weight, bias, exact) if wants_gradient else None
        loss = states.new_zeros((), dtype=exact)
        n_correct = targets.new_zeros(())
        step = rows_per_chunk(len(weight), states.device.type)
        with torch.autocast(states.device.type, enabled=False):
            for begin in range(0, len(states), step):
                rows, wanted = states[begin : begin + step].to(compute), targets[begin:][:step]
                log_probs = linear(rows, matrix, offset).to(exact).log_softmax(1)
                loss -= log_probs.gather(1, wanted[:, None]).sum()
                n_correct += (log_probs.max(1).indices == wanted).sum()
                if gradient is not None:
                    excess = log_probs.exp_()
                    excess[torch.arange(len(wanted), device=wanted.device), wanted] -= 1
                    gradient.add(slice(begin, begin + step), rows, matrix, excess)
        if gradient is not None:
            ctx.save_for_backward(gradient.states, gradient.weight, gradient.bias)
            ctx.types = (states.dtype, weight.dtype, bias.dtype)
        ctx.mark_non_differentiable(n_correct)
        return loss, n_correct

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        scaled = (
            (saved * factor).to(kind)
            for saved, kind in zip(ctx.saved_tensors, ctx.types, strict=True)
        )
        return (*scaled, None, None, None)


class _Gradient:
    """The gradient of a summed loss, accumulated chunk by chunk; shapes as the parameters'."""

    def __init__(self, states: Tensor, weight: Tensor, bias: Tensor, exact: torch.dtype) -> None:
        self.states = torch.empty_like(states, dtype=exact)
        self.weight = torch.zeros_like(weight, dtype=exact)
        self.bias = torch.zeros_like(bias, dtype=exact)

    def add(self, where: slice, rows: Tensor, matrix: Tensor, excess: Tensor) -> None:
        """Add the contribution of the rows ``where``.

        :param rows: their states.  Shape: (n, dim)
        :param excess: the gradient of their scores: probability minus one-hot target.
            Shape: (n, vocabulary_size)
        """
        self.bias += excess.sum(0)
        excess = excess.to(rows.dtype)
        self.states[where] = linear(excess, matrix.t())
        if rows.dtype == self.weight.dtype:
            add_product(self.weight, excess, rows)
        else:
            self.weight += excess.t() @ rows
