"""A rough estimate of the memory that a run needs, before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass

from xlm_plugins.config.model import ModelOptions

_FLOATS = 4
"""Bytes per number: weights, gradients and moments are fp32, whatever the precision."""

_WIDTHS = {1: 17, 2: 27}
"""Numbers kept per token and layer, in multiples of the model's width, by the number of stacks:
states, projections, FFN, dropout masks; with two stacks, half of the layers attend twice.  Measured
(tests/training/test_memory_estimate.py)."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one rank.

    :param weights: parameters; with ZeRO 1 and 2, also this rank's part of a second copy.
    :param gradients: of the trained parameters.
    :param moments: Adam's two.
    :param activations: what the forward pass of a micro-batch keeps for the backward pass.
    """

    weights: int
    gradients: int
    moments: int
    activations: int

    @classmethod
    def of(
        cls,
        model: ModelOptions,
        n_parameters: int,
        n_trained: int,
        n_tokens: int,
        *,
        n_stacks: int,
        stage: int,
        world_size: int,
        half: bool,
    ) -> MemoryEstimate:
        """Estimate from the shape of a model.

        :param n_parameters: of the model, of which ``n_trained`` are trained.
        :param n_tokens: of a rank's micro-batch.
        :param stage: of ZeRO; 0 without it.
        :param half: activations are in bf16 or fp16.
        """
        share = n_trained / world_size
        weights = n_parameters if stage < 3 else n_parameters / world_size
        kept = n_tokens * model.n_layers * model.dim * _WIDTHS[n_stacks]
        return cls(
            weights=round(_FLOATS * (weights + (share if stage in (1, 2) else 0))),
            gradients=round(_FLOATS * (n_trained if stage < 2 else share)),
            moments=round(2 * _FLOATS * (n_trained if stage == 0 else share)),
            activations=round(kept * (_FLOATS / 2 if half else _FLOATS)),
        )

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.moments + self.activations

    def line(self) -> str:
        """The estimate as a line for the user."""
        return (
            f"memory per rank, about: {bytes_in_words(self.total)} (weights "
            f"{bytes_in_words(self.weights)}, gradients {bytes_in_words(self.gradients)}, moments "
            f"{bytes_in_words(self.moments)}, activations {bytes_in_words(self.activations)})"
        )


def bytes_in_words(number: float) -> str:
    """``312 MB``, ``4.2 GB``."""
    for unit in ("bytes", "kB", "MB"):
        if number < 999.5:
            return f"{number:.0f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"
