"""Bottleneck adapters (Houlsby et al., 2019, arXiv 1902.00751), one after each layer as in
Pfeiffer et al. (2020, arXiv 2005.00052)."""

from __future__ import annotations

from torch import Tensor, nn

from xlm_adapter import AdapterOptions
from xlm_plugins import Layer


class Adapter(Layer):
    """``up(activation(down(x)))``, which the stack adds to ``x``.

    ``up`` is initialised to zero, so that a trained model is unchanged at first.

    :param options: the bottleneck.
    :param dim: width of the model.
    """

    options: AdapterOptions

    def __init__(self, options: AdapterOptions, dim: int) -> None:
        super().__init__(options, dim)
        self.down = nn.Linear(dim, options.width)
        self.activation = nn.GELU() if options.activation == "gelu" else nn.ReLU()
        self.up = nn.Linear(options.width, dim)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    @classmethod
    def default_position(cls, n_layers: int) -> str:
        """After every layer."""
        return ",".join(f"{index}+" for index in range(n_layers))

    def forward(self, x: Tensor) -> Tensor:
        """Shape: (n_tokens, dim) -> (n_tokens, dim)"""
        adapted: Tensor = self.up(self.activation(self.down(x)))
        return adapted

    def train_only(self) -> tuple[str, ...]:
        """The head: output layers and the objectives' own modules.

        Where the output is tied to the token embeddings, these stay frozen, and of the output
        layer its bias is trained.
        """
        return ("encoder.output.*", "decoder.output.*", "heads.*")
