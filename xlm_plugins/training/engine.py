"""Engines: forward, backward, update and state, behind one small interface.

`TorchEngine` serves one process in plain torch, and is what the DeepSpeed engine is tested
against.  Both keep fp32 weights and moments by parameter name, so a checkpoint of one continues
under the other, at any world size.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from xlm_plugins.core.batch import Batch, LossOutput, Step
from xlm_plugins.core.contracts import Trainable
from xlm_plugins.core.errors import BundleError, OptionError
from xlm_plugins.model.weights import load_weights, named_weights
from xlm_plugins.training import optimizer as optim
from xlm_plugins.training.adamw import MOMENTS
from xlm_plugins.training.config import OptimizerOptions, RunOptions
from xlm_plugins.training.launch import World, choose_engine
from xlm_plugins.training.signals import StopAsked

if TYPE_CHECKING:
    from xlm_plugins.model.root import Model


@dataclass(frozen=True)
class TrainingState:
    """All that an engine needs to go on, whatever engine and world size wrote it.

    :param weights: fp32 parameters and buffers by name, on the CPU; tied parameters once.
    :param moments: by moment (``exp_avg``, ``exp_avg_sq``), then by trained parameter.
    :param n_updates: updates made; skipped ones do not count.
    :param loss_scale: fp16's dynamic loss scaling, empty for other precisions.
    """

    weights: dict[str, Tensor]
    moments: dict[str, dict[str, Tensor]]
    n_updates: int = 0
    loss_scale: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class StepReport:
    """What an update did.

    :param gradient_norm: over all parameters, before clipping; may be inf or NaN.
    :param skipped: the norm was not finite, so weights and moments stay as they were.
    """

    gradient_norm: float
    skipped: bool


class Engine(ABC):
    """Trains one model: gradients over micro-batches, then one update.

    :param model: the root module; every forward passes through it.
    :param world: this process among the others.
    :param precision: fp32, bf16 (by autocast: parameters stay fp32) or fp16.

    ``n_trained`` is how many numbers training changes.  Without ``can_generate`` every step of a
    generation would be a collective, and ranks whose sentences end earlier would leave it.
    """

    n_trained: int
    can_generate = True
    asked_to_stop: Callable[[], bool] | None = None
    """Whether a signal came to this process; set while a run can be stopped."""

    def __init__(self, model: Model, world: World, precision: str) -> None:
        self.model = model
        self.device = world.device
        self.rank = world.rank
        self.world_size = world.world_size
        self.precision = precision

    @abstractmethod
    def _forward(self, trainable: Trainable, batch: Batch) -> LossOutput:
        """One pass through the root module, in the engine's precision."""

    @abstractmethod
    def _backward(self, loss: Tensor) -> None:
        """Accumulate the gradient of the sum over ranks of this rank's loss."""

    @abstractmethod
    def step(self, rate: float) -> StepReport:
        """Update the weights with the gradient accumulated since the last step.

        :param rate: the run's learning rate; groups with a rate of their own derive theirs.
        """

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """As `TrainingState.weights`.  Collective; whole on rank 0, empty on the others."""

    @abstractmethod
    def state(self) -> TrainingState:
        """All that is needed to go on.  Collective; without tensors on ranks other than 0."""

    def prepare(self, trainable: Trainable, batch: Batch, step: Step) -> Batch:
        """Bring a batch to the device and let the objective complete it, without gradient."""
        with self.inference():
            return trainable.prepare(self.model, batch.to(self.device), step)

    def forward_backward(self, trainable: Trainable, batch: Batch, scale: float) -> LossOutput:
        """Accumulate the gradient of ``scale * loss``, summed over micro-batches and ranks.

        :param scale: weight / targets of the global batch; the same on every rank.
        :returns: this rank's sums for this micro-batch, without gradient.
        """
        output = self._forward(trainable, batch)
        self._backward(output.loss * scale)
        return LossOutput(*(part.detach() for part in output))

    def evaluate(self, trainable: Trainable, batch: Batch) -> LossOutput:
        """The loss in eval mode, without gradient.  Collective, as every forward is.

        :raises StopAsked: as `stop_if_asked`.
        """
        self.stop_if_asked()
        with self._evaluating():
            return self._forward(trainable, batch.to(self.device))

    @contextmanager
    def inference(self) -> Iterator[None]:
        """While entered, the model is in eval mode and keeps no gradient."""
        with self._evaluating(), self._autocast():
            yield

    def stop_if_asked(self) -> None:
        """Leave an evaluation in whose middle a signal came.  Collective.

        :raises StopAsked: on all ranks, if any was asked.
        """
        if self.asked_to_stop is not None and self.agree(float(self.asked_to_stop())):
            raise StopAsked

    @contextmanager
    def keeping_loss_scale(self) -> Iterator[None]:
        """While entered, skipped updates leave fp16's loss scaling as it is."""
        yield

    def gather(self, texts: list[str]) -> list[list[str]]:
        """The texts of all ranks, rank by rank, on every rank."""
        if self.world_size == 1:
            return [texts]
        gathered: list[list[str]] = [[] for _ in range(self.world_size)]
        dist.all_gather_object(gathered, texts)
        return gathered

    def sum(self, values: Tensor) -> Tensor:
        """Sum over ranks, on the device that the values came from; they are left as they are."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def agree(self, value: float) -> float:
        """One value for all: the greatest over ranks, of a clock or a stop signal."""
        return float(self._reduced(torch.tensor(value, dtype=torch.float64), dist.ReduceOp.MAX))

    def _reduced(self, values: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
        if self.world_size == 1:
            return values.clone()
        reduced = values.to(self.device, copy=True)
        dist.all_reduce(reduced, operation)
        return reduced.to(values.device)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.model.train(was_training)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")


class TorchEngine(Engine):
    """One process, plain torch.

    :param state: what to go on from; a fresh start if None.
    :raises OptionError: fp16, which needs loss scaling.
    :raises BundleError: the state does not fit the model.
    """

    def __init__(
        self,
        model: Model,
        options: OptimizerOptions,
        train: RunOptions,
        world: World,
        state: TrainingState | None = None,
    ) -> None:
        precision = choose_precision(train.precision, world.device)
        if precision == "fp16":
            raise OptionError(
                "the torch engine has no fp16",
                expected="--precision bf16 or fp32",
                remedy="take --engine deepspeed, which scales the loss as fp16 needs",
            )
        super().__init__(model, world, precision)
        self.options = options
        self.groups = optim.parameter_groups(model, options, train.train_only)
        if state is not None:
            load_weights(model, state.weights, "the checkpoint")
        model.to(self.device)
        self._trained = optim.trained_parameters(self.groups)
        self.n_trained = sum(parameter.numel() for parameter in self._trained.values())
        self._optimizer = optim.adamw(self.groups)
        self._n_updates = state.n_updates if state else 0
        self._optimizer.start(self._trained.values(), self._n_updates)
        if state is not None:
            self._load_moments(moments_for(state, self._trained))
        model.train()

    def _forward(self, trainable: Trainable, batch: Batch) -> LossOutput:
        with self._autocast():
            output: LossOutput = self.model(trainable, batch)
        return output

    def _backward(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self, rate: float) -> StepReport:
        optim.set_rates(self._optimizer, self.groups, self.options, rate, self._n_updates)
        norm = optim.update(self._optimizer, self.options.clip)
        skipped = not math.isfinite(norm)
        self._n_updates += not skipped
        return StepReport(norm, skipped)

    def weights(self) -> dict[str, Tensor]:
        return {name: on_cpu(tensor) for name, tensor in named_weights(self.model).items()}

    def state(self) -> TrainingState:
        moments = {
            key: {
                name: on_cpu(self._optimizer.state[parameter][key])
                for name, parameter in self._trained.items()
            }
            for key in MOMENTS
        }
        return TrainingState(self.weights(), moments, self._n_updates)

    def _load_moments(self, moments: Mapping[str, Mapping[str, Tensor]]) -> None:
        for name, parameter in self._trained.items():
            for key in MOMENTS:
                self._optimizer.state[parameter][key].copy_(moments[key][name])


def create_engine(
    model: Model,
    options: OptimizerOptions,
    train: RunOptions,
    world: World,
    state: TrainingState | None = None,
) -> Engine:
    """The engine that the run's options ask for; `launch.start` comes before it.

    :param train: ``engine``, ``precision``, ``train_only``, ``zero_stage`` and
        ``deepspeed_config`` are read.
    :param state: what to go on from; its weights replace the model's.
    :raises XLMError: options that contradict each other, or a state that does not fit.
    """
    if choose_engine(train.engine, world) == "torch":
        if train.deepspeed_config:
            raise OptionError(
                f"--deepspeed-config {train.deepspeed_config} has no meaning for the torch engine",
                remedy="take --engine deepspeed, or leave the file out",
            )
        return TorchEngine(model, options, train, world, state)
    from xlm_plugins.training.deepspeed_engine import DeepSpeedEngine

    return DeepSpeedEngine(model, options, train, world, state)


def choose_precision(wanted: str, device: torch.device) -> str:
    """Resolve ``--precision``: auto is bf16 on a GPU that has it, and fp32 elsewhere."""
    if wanted != "auto":
        return wanted
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def moments_for(state: TrainingState, names: Iterable[str]) -> dict[str, dict[str, Tensor]]:
    """The state's moments, checked against the parameters that are trained.

    :raises BundleError: the checkpoint trained other parameters.
    """
    wanted = set(names)
    for key in MOMENTS:
        if wanted != (found := state.moments.get(key, {}).keys()):
            differing = sorted(wanted ^ found)
            raise BundleError(
                f"the checkpoint's moments {key} are not those of what is trained now: "
                f"{len(differing)} differ, such as {differing[0]}",
                remedy="go on with the --train-only of the run that wrote it: RUN/config.toml",
            )
    return state.moments


def on_cpu(tensor: Tensor) -> Tensor:
    """A copy that later updates do not touch."""
    return tensor.detach().to("cpu", copy=True)
