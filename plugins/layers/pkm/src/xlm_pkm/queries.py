"""From states to queries: a linear layer or a small network, optionally with BatchNorm."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional


class QueryNorm(nn.BatchNorm1d):
    """BatchNorm for any number of tokens: fewer than two are normalised as in evaluation.

    In fp16 the statistics are fp32, since DeepSpeed does not convert them; so the weights must be.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each feature over the tokens.  Shape: (n_tokens, n_features), kept."""
        training = self.training and len(x) >= 2
        if training:
            self.num_batches_tracked += 1
        mean, variance = self.running_mean, self.running_var
        weight, bias = self.weight.to(mean.dtype), self.bias.to(mean.dtype)
        # Without rows, gradients would arrive in another order, which ZeRO 2 and 3 would mix up.
        rows = x if len(x) else functional.pad(x, (0, 0, 0, 1))
        normalised = functional.batch_norm(
            rows, mean, variance, weight, bias, training, self.momentum, self.eps
        )
        return normalised[: len(x)]


def hidden_layers(widths: Sequence[int], batchnorm: bool) -> nn.Sequential:
    """Linear, BatchNorm (optional) and ReLU from each width to the next; identity for one width.

    Shape of the module: (n_tokens, widths[0]) -> (n_tokens, widths[-1])
    """
    parts: list[nn.Module] = []
    for width, following in pairwise(widths):
        parts.append(nn.Linear(width, following))
        if batchnorm:
            parts.append(QueryNorm(following))
        parts.append(nn.ReLU())
    return nn.Sequential(*parts)
