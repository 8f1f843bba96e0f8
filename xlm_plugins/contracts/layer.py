"""The contract of a layer, and of parameters with their own optimizer settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters with their own optimizer settings; None means the run's setting.

    :param parameters: parameters of the layer itself.
    :param lr: the peak learning rate of the group.
    :param schedule: ``constant`` keeps the rate at ``lr`` from the first update on.
    :param betas: Adam's decay rates.
    :param weight_decay: decoupled weight decay.
    :param touched_rows: an update leaves rows (along the first axis) whose gradient is zero
        unchanged, weights and moments; other rows are updated as usual (lazy Adam).
    """

    parameters: tuple[nn.Parameter, ...]
    lr: float | None = None
    schedule: Literal["constant"] | None = None
    betas: tuple[float, float] | None = None
    weight_decay: float | None = None
    touched_rows: bool = False


class Layer(nn.Module):
    """A module in a transformer stack, instead of a layer's FFN or after a layer.

    In both places the stack adds the result to the input: ``x + layer(x)``; instead of an FFN, it
    is followed by dropout and LayerNorm as an FFN is.

    :param options: the component's options object.
    :param dim: width of the model.
    """

    name: str = ""

    def __init__(self, options: Any, dim: int) -> None:
        super().__init__()
        self.options = options
        self.dim = dim

    @classmethod
    def build(cls, options: Any, dim: int, n_positions: int) -> list[Layer]:
        """The layers of one selection, one per position, from torch's current random state.

        Override it if the layers are to share parameters.
        """
        return [cls(options, dim) for _ in range(n_positions)]

    @classmethod
    def default_position(cls, n_layers: int) -> str:
        """The position if the user gives none, in the notation of ``--layer``."""
        return str(n_layers // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map packed states to packed states; rows must not affect each other.

        The order in which gradients reach the parameters must not depend on the number of rows:
        ZeRO 2 and 3 sum them over ranks in the order of arrival.

        :param x: shape (n_tokens, dim).
        :returns: shape (n_tokens, dim).
        """
        raise NotImplementedError

    def parameter_groups(self) -> list[ParameterGroup]:
        """Parameters that need their own settings; all others use the run's."""
        return []

    def train_only(self) -> tuple[str, ...]:
        """Shell patterns of the model's parameters to train, if all others are to be frozen.

        The parameters of layers that return patterns are always trained.  ``--train-only``
        overrides all of this.
        """
        return ()

    def begin_at_zero(self) -> None:
        """Change the parameters so that the output is zero for any input.

        Called when the layer is added to a model that was trained without it (``--init``).  A layer
        for which this is impossible, or already true, does nothing.
        """

    def statistics(self) -> dict[str, Tensor]:
        """Counters collected in eval mode since `reset_statistics`: sums over batches.

        Names and shapes are always the same, with zeros if nothing was counted.  Returned tensors
        do not change afterwards.
        """
        return {}

    def reset_statistics(self) -> None:
        """Set the counters to zero; called around every batch of an evaluation."""

    def metrics(self, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        """Compute metrics, by name, from counters that were summed over all ranks."""
        return {}
