"""The interface of engines: forward, backward, update and state.

Engines keep fp32 weights and moments by parameter name, so a run can be resumed with the other
engine, and at any world size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from xlm_plugins.config.training import OptimizerOptions, RunOptions
from xlm_plugins.contracts.batch import Batch, LossOutput, Step
from xlm_plugins.contracts.objective import Trainable
from xlm_plugins.model.weights import load_weights
from xlm_plugins.training.distributed.process_group import World
from xlm_plugins.training.distributed.signals import StopAsked, StopRequest
from xlm_plugins.training.engines.training_state import TrainingState
from xlm_plugins.training.optim.parameter_groups import (
    freeze_others,
    parameter_groups,
    trained_parameters,
)

if TYPE_CHECKING:
    from xlm_plugins.model.model import Model


@dataclass(frozen=True)
class StepReport:
    """The result of an update.

    :param gradient_norm: over all parameters, before clipping; may be inf or NaN.
    :param skipped: whether weights and moments were left unchanged, since the norm was not finite.
    """

    gradient_norm: float
    skipped: bool


class Engine(ABC):
    """Trains one model: accumulates gradients over micro-batches, then updates.

    :param model: the root module; every forward passes through it.
    :param train: ``precision`` (fp32, bf16 by autocast over fp32 parameters, or fp16) and
        ``train_only`` are read.
    :param world: this process among the others.
    :param state: what to resume from, if anything; its weights replace the model's.
    :param stop: interrupts evaluations when a signal comes.
    :raises OptionError: options that contradict each other, or that the engine does not support.
    :raises BundleError: the state does not fit the model.

    ``n_trained`` is the number of trained parameters.  An engine without ``can_generate`` cannot
    generate text: each step would be a collective, and ranks finish after different numbers of
    steps.
    """

    can_generate = True

    def __init__(
        self,
        model: Model,
        options: OptimizerOptions,
        train: RunOptions,
        world: World,
        state: TrainingState | None = None,
        stop: StopRequest | None = None,
    ) -> None:
        self.model = model
        self.options = options
        self.device = world.device
        self.rank = world.rank
        self.world_size = world.world_size
        self.precision = choose_precision(train.precision, world.device)
        self.groups = parameter_groups(model, options, train.train_only)
        self._trained = trained_parameters(self.groups)
        self.n_trained = sum(parameter.numel() for parameter in self._trained.values())
        self._n_updates = state.n_updates if state else 0
        self._stop = stop
        freeze_others(model, self._trained)
        if state is not None:
            load_weights(model, state.weights, "the checkpoint")

    @abstractmethod
    def _forward(self, trainable: Trainable, batch: Batch) -> LossOutput:
        """One pass through the root module, in the engine's precision."""

    @abstractmethod
    def _backward(self, loss: Tensor) -> None:
        """Accumulate the gradient of the sum over ranks of this rank's loss."""

    @abstractmethod
    def step(self, rate: float) -> StepReport:
        """Update the weights with the gradient accumulated since the last step.

        :param rate: the run's learning rate, from which groups derive theirs.
        """

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """As `TrainingState.weights`.  Collective; whole on rank 0, empty on the others."""

    @abstractmethod
    def state(self) -> TrainingState:
        """Everything needed to resume.  Collective; without tensors on ranks other than 0."""

    def prepare(self, trainable: Trainable, batch: Batch, step: Step) -> Batch:
        """Move a batch to the device and let the objective complete it, without gradients."""
        with self.inference():
            return trainable.prepare(self.model, batch.to(self.device), step)

    def forward_backward(self, trainable: Trainable, batch: Batch, scale: float) -> LossOutput:
        """Accumulate the gradient of ``scale * loss``, summed over micro-batches and ranks.

        :param scale: loss weight / targets of the global batch; the same on every rank.
        :returns: this rank's sums for this micro-batch, detached.
        """
        output = self._forward(trainable, batch)
        self._backward(output.loss * scale)
        return LossOutput(*(part.detach() for part in output))

    def evaluate(self, trainable: Trainable, batch: Batch) -> LossOutput:
        """The loss in eval mode, without gradients.  Collective, as every forward is.

        :raises StopAsked: as `stop_if_asked`.
        """
        self.stop_if_asked()
        with self.evaluating():
            return self._forward(trainable, batch.to(self.device))

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """While entered, the model is in eval mode; enter it once around many `evaluate`."""
        was_training = self.model.training
        if was_training:  # setting the mode visits every module
            self.model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            if was_training:
                self.model.train()

    @contextmanager
    def inference(self) -> Iterator[None]:
        """While entered, the model is in eval mode and computes no gradients."""
        with self.evaluating(), self._autocast():
            yield

    def stop_if_asked(self) -> None:
        """Interrupt an evaluation if a signal has come.  Collective.

        :raises StopAsked: on all ranks, if any of them got a signal.
        """
        if self._stop is not None and self.max_over_ranks(float(self._stop.asked())):
            raise StopAsked

    @contextmanager
    def keeping_loss_scale(self) -> Iterator[None]:
        """While entered, skipped updates do not change fp16's loss scale."""
        yield

    def gather(self, texts: list[str]) -> list[list[str]]:
        """The texts of all ranks, rank by rank, on every rank.  Collective."""
        if self.world_size == 1:
            return [texts]
        gathered: list[list[str]] = [[] for _ in range(self.world_size)]
        dist.all_gather_object(gathered, texts)
        return gathered

    def seed(self, number: int) -> None:
        """Seed this rank's random numbers: those that `torch.manual_seed` gives.

        That function formats the call stack for GPUs that may be used later: a tenth of the time
        of a small step on a CPU.
        """
        if self.device.type == "cpu":
            torch.default_generator.manual_seed(number)
        else:
            torch.manual_seed(number)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over ranks, on the device of the values, which stay unchanged.  Collective."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def max_over_ranks(self, value: float) -> float:
        """The maximum over ranks, so that all of them act alike.  Collective."""
        return float(self._reduced(torch.tensor(value, dtype=torch.float64), dist.ReduceOp.MAX))

    def _reduced(self, values: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
        if self.world_size == 1:
            return values.clone()
        reduced = values.to(self.device, copy=True)
        dist.all_reduce(reduced, operation)
        return reduced.to(values.device)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")


def choose_precision(wanted: str, device: torch.device) -> str:
    """Resolve ``--precision``: auto is bf16 on a GPU that supports it, and fp32 elsewhere."""
    if wanted != "auto":
        return wanted
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def on_cpu(tensor: Tensor) -> Tensor:
    """A copy on the CPU, which later updates do not change."""
    return tensor.detach().to("cpu", copy=True)
