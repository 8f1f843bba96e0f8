"""The contract of a layer, and of parameters that are optimised on their own terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are optimised otherwise than the rest; None means as the run does.

    :param parameters: the layer's own parameters.
    :param lr: the peak learning rate of the group.
    :param schedule: ``constant`` keeps the rate at ``lr`` from the first update on.
    :param betas: Adam's decay rates.
    :param weight_decay: decoupled weight decay.
    :param touched_rows: an update leaves a row (along the first axis) whose gradient is zero as
        it is, weight, moments and all; other rows are updated as ever (lazy Adam).
    """

    parameters: tuple[nn.Parameter, ...]
    lr: float | None = None
    schedule: Literal["constant"] | None = None
    betas: tuple[float, float] | None = None
    weight_decay: float | None = None
    touched_rows: bool = False


class Layer(nn.Module):
    """A module put into a transformer stack, in place of a layer's FFN or after a layer.

    Either way the stack adds the result to its input: ``x + layer(x)``; in place of an FFN the
    layer's LayerNorm and dropout follow as they do for an FFN.

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
        """The layers of one selection, one a position, from torch's current random state.

        Override it where they share parameters; each other parameter is a layer's own.
        """
        return [cls(options, dim) for _ in range(n_positions)]

    @classmethod
    def default_position(cls, n_layers: int) -> str:
        """Where the layer goes when the user says nothing, in the flag's own notation."""
        return str(n_layers // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map packed states to packed states; rows do not see each other.

        Gradients must reach the parameters in one order, however many rows there are: ZeRO 2 and 3
        sum them over ranks as they come.

        :param x: shape (n_tokens, dim).
        :returns: shape (n_tokens, dim).
        """
        raise NotImplementedError

    def parameter_groups(self) -> list[ParameterGroup]:
        """Parameters that want a rate of their own; those not named are the run's."""
        return []

    def train_only(self) -> tuple[str, ...]:
        """Shell patterns over the model's parameters, if the layer wants all others frozen.

        The parameters of such layers are trained whatever the patterns say.  ``--train-only``
        of the user's wins over all of this.
        """
        return ()

    def begin_at_zero(self) -> None:
        """Change the parameters so that the output is zero, whatever the input.

        Called when the layer joins a model that was trained without it (``--init``).  A layer
        that cannot, or is so from the start, leaves itself as it is.
        """

    def statistics(self) -> dict[str, Tensor]:
        """Counters gathered in eval mode since `reset_statistics`: sums, which batches add up to.

        The same names and shapes each time, zeros where nothing was counted; what was handed out
        does not change afterwards.
        """
        return {}

    def reset_statistics(self) -> None:
        """Set the counters to zero; the runtime calls it around every batch of an evaluation."""

    def metrics(self, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        """Turn counters, summed over all ranks, into named numbers."""
        return {}
