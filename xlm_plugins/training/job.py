"""A job: a run that has been decided on but not started."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from xlm_plugins.config.origins import Origins
from xlm_plugins.config.settings import Values
from xlm_plugins.config.training import OptimizerOptions, RunOptions
from xlm_plugins.model.description import ModelDescription
from xlm_plugins.model.model import Model
from xlm_plugins.training.engines.engine import Engine
from xlm_plugins.training.preflight import Rehearsal
from xlm_plugins.training.progress import Report
from xlm_plugins.training.trainer import TrainingPlan


@dataclass(frozen=True)
class Outcome:
    """How a run ended: why, where its folder is, and after how many updates."""

    reason: str
    path: Path
    update: int


class Job(ABC):
    """A run that has been decided on but not started; `run_job` calls its steps in this order.

    :param options: how long it trains, what it writes, and how it is divided over processes.
    :param description: of the model.
    :param data: fingerprint of the data.
    :param stem: name of the run folder, without its number, if the user names none.
    :param settings_from: where its settings were given.
    """

    command: str
    """The command that resumes it: ``xlm train``."""

    def __init__(
        self,
        options: RunOptions,
        optimizer: OptimizerOptions,
        description: ModelDescription,
        data: str,
        stem: str,
        settings_from: Origins,
    ) -> None:
        self.options = options
        self.optimizer = optimizer
        self.description = description
        self.data = data
        self.stem = stem
        self.settings_from = settings_from

    @abstractmethod
    def check_resumed(self, checkpoint: Path, run: Path) -> None:
        """Refuse to resume a checkpoint of other data.

        :raises XLMError: says what differs.
        """

    @abstractmethod
    def build(self) -> Model:
        """The model with fresh weights, drawn from torch's current random state."""

    @abstractmethod
    def notes(self, model: Model) -> list[str]:
        """What a user checks before the run starts: data, objectives, size of the model."""

    @abstractmethod
    def initialise(self, model: Model, report: Report) -> None:
        """Load the weights that the run starts from, if any, into a fresh model."""

    @abstractmethod
    def describe_update(self, index: int) -> str:
        """What an update trains on, such as ``tlm:en-fr``."""

    @abstractmethod
    def passes(self, n_updates: int) -> list[str]:
        """How often so many updates read each text, as lines for a dry run."""

    @abstractmethod
    def rehearsals(self, n_parts: int) -> list[Rehearsal]:
        """The largest micro-batch of everything that is trained.

        :param n_parts: parts of a global batch: ranks x accumulation.
        """

    @abstractmethod
    def training_plan(self, engine: Engine) -> TrainingPlan:
        """What the trainer trains on, and how it evaluates.

        :raises XLMError: the engine cannot train it, or a validation metric is not measured.
        """

    @abstractmethod
    def config(self) -> str:
        """The text of config.toml, with which the run can be repeated."""

    @abstractmethod
    def completed(self, config: Values) -> str:
        """`config` of an earlier start of the run, with the options that are new since then.

        :param config: the tree of its config.toml.
        """

    def prepare_folder(self) -> None:  # noqa: B027  # most jobs have nothing to prepare
        """Called by the process that writes, once the run folder exists."""


def n_parameters(module: nn.Module) -> int:
    """The number of parameters of a module, each element counted."""
    return sum(parameter.numel() for parameter in module.parameters())
