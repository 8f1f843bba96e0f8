"""The engine for one process, in plain torch; the DeepSpeed engine is tested against it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from xlm_plugins.config.training import OptimizerOptions, RunOptions
from xlm_plugins.contracts.batch import Batch, LossOutput
from xlm_plugins.contracts.objective import Trainable
from xlm_plugins.core.errors import OptionError
from xlm_plugins.model.weights import named_weights
from xlm_plugins.training.distributed.process_group import World
from xlm_plugins.training.distributed.signals import StopRequest
from xlm_plugins.training.engines.engine import Engine, StepReport, on_cpu
from xlm_plugins.training.engines.training_state import TrainingState, moments_for
from xlm_plugins.training.optim import parameter_groups as optim
from xlm_plugins.training.optim.adamw import MOMENTS

if TYPE_CHECKING:
    from xlm_plugins.model.model import Model


class TorchEngine(Engine):
    """One process, plain torch, in fp32 or bf16."""

    def __init__(
        self,
        model: Model,
        options: OptimizerOptions,
        train: RunOptions,
        world: World,
        state: TrainingState | None = None,
        stop: StopRequest | None = None,
    ) -> None:
        super().__init__(model, options, train, world, state, stop)
        if self.precision == "fp16":
            raise OptionError(
                "the torch engine does not support fp16",
                expected="--precision bf16 or fp32",
                remedy="use --engine deepspeed, which scales the loss as fp16 requires",
            )
        model.to(self.device)
        self._optimizer = optim.adamw(self.groups)
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
