"""Choosing the engine that a run's options ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xlm_plugins.config.training import OptimizerOptions, RunOptions
from xlm_plugins.core.errors import OptionError
from xlm_plugins.training.distributed.process_group import World, choose_engine
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
    from xlm_plugins.training.engines.deepspeed_engine import DeepSpeedEngine

    return DeepSpeedEngine(model, options, train, world, state)
