"""The layer: a bottleneck."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional
from xlm_plugins import Layer

from xlm_example import ExampleLayerOptions


class ExampleLayer(Layer):
    """W2 silu(W1 x + b1) + b2, with ``width`` values in the middle."""

    options: ExampleLayerOptions

    def __init__(self, options: ExampleLayerOptions, dim: int) -> None:
        super().__init__(options, dim)
        self.narrow = nn.Linear(dim, options.width)
        self.widen = nn.Linear(options.width, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map packed states, without padding; the stack adds the result to x.

        :param x: shape (n_tokens, dim).
        :returns: shape (n_tokens, dim).
        """
        mapped: Tensor = self.widen(functional.silu(self.narrow(x)))
        return mapped

    def begin_at_zero(self) -> None:
        """Added to a model that was trained without it (`--init`), the layer then changes nothing."""
        nn.init.zeros_(self.widen.weight)
        nn.init.zeros_(self.widen.bias)
