"""Creating the engine that a run's options ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xlm_plugins.config.training import OptimizerOptions, RunOptions
from xlm_plugins.core.errors import OptionError
from xlm_plugins.training.distributed.process_group import World, choose_engine
from xlm_plugins.training.distributed.signals import StopRequest
from xlm_plugins.training.engines.engine import Engine
from xlm_plugins.training.engines.torch_engine import TorchEngine
from xlm_plugins.training.engines.training_state import TrainingState

if TYPE_CHECKING:
    from xlm_plugins.model.model import Model


def create_engine(
    model: Model,
    options: OptimizerOptions,
    train: RunOptions,
    world: World,
    state: TrainingState | None = None,
    stop: StopRequest | None = None,
) -> Engine:
    """Create the engine that the run's options ask for.

    The process group must have been joined (`process_group.start`).

    :param train: ``engine``, ``precision``, ``train_only``, ``zero_stage`` and
        ``deepspeed_config`` are read.
    :param state: what to resume from; its weights replace the model's.
    :param stop: interrupts evaluations when a signal comes.
    :raises XLMError: options that contradict each other, or a state that does not fit.
    """
    if choose_engine(train.engine, world) == "torch":
        if train.deepspeed_config:
            raise OptionError(
                f"--deepspeed-config {train.deepspeed_config} does not apply to the torch engine",
                remedy="use --engine deepspeed, or leave the file out",
            )
        return TorchEngine(model, options, train, world, state, stop)
    from xlm_plugins.training.engines.deepspeed_engine import DeepSpeedEngine

    return DeepSpeedEngine(model, options, train, world, state, stop)
