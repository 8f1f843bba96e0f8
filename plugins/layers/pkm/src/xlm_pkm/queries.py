"""From states to queries: a linear layer, or a small network, with BatchNorm between if wanted."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional


class QueryNorm(nn.BatchNorm1d):
    """BatchNorm that takes any number of tokens: fewer than two are normalised as in evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each feature over the tokens.  Shape: (n_tokens, n_features), kept."""
        if len(x) >= 2:
            return super().forward(x)
        return functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


def hidden_layers(widths: Sequence[int], batchnorm: bool) -> nn.Sequential:
    """Linear, BatchNorm (if wanted) and ReLU from each width to the next; one width is identity.

    Shape of the module: (n_tokens, widths[0]) -> (n_tokens, widths[-1])
    """
    parts: list[nn.Module] = []
    for width, following in pairwise(widths):
        parts.append(nn.Linear(width, following))
        if batchnorm:
            parts.append(QueryNorm(following))
        parts.append(nn.ReLU())
    return nn.Sequential(*parts)
