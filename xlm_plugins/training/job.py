"""A job: a run that is decided and not begun."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from xlm_plugins.config.training import OptimizerOptions, RunOptions
from xlm_plugins.model.description import ModelDescription
from xlm_plugins.model.model import Model
from xlm_plugins.training.engines.engine import Engine
from xlm_plugins.training.preflight import Rehearsal
from xlm_plugins.training.progress import Report
from xlm_plugins.training.trainer import Course


@dataclass(frozen=True)
class Outcome:
    """How a run ended: why, where it lies, and after how many updates."""

    reason: str
    path: Path
    update: int


class Job(ABC):
    """A run that is decided and not begun.

    :param options: how long it goes on, what it writes, and how it is split up.
    :param data: fingerprint of what it is trained on.
    :param stem: of the folder's name where the user gives none.
    """

    command: str
    """What a user types to go on with it: ``xlm train``."""

    def __init__(
        self,
        options: RunOptions,
        optimizer: OptimizerOptions,
        description: ModelDescription,
        data: str,
        stem: str,
    ) -> None:
        self.options = options
        self.optimizer = optimizer
        self.description = description
        self.data = data
        self.stem = stem

    @abstractmethod
    def config(self) -> str:
        """The text of config.toml, with which the run can be repeated."""

    def begin(self) -> None:  # noqa: B027  # most write nothing beside their folder
        """Called when the run's folder is there, by the process that writes it."""

    @abstractmethod
    def build(self) -> Model:
        """The model with fresh weights, drawn from torch's current random state."""

    @abstractmethod
    def initialise(self, model: Model, report: Report) -> None:
        """Give a fresh model the weights that the run starts from."""

    @abstractmethod
    def notes(self, model: Model) -> list[str]:
        """What a person wants to know before the run begins."""

    @abstractmethod
    def check_resumed(self, checkpoint: Path, run: Path) -> None:
        """Refuse a checkpoint that belongs to other data.

        :raises XLMError: says what differs.
        """

    @abstractmethod
    def rehearsals(self, n_parts: int) -> list[Rehearsal]:
        """The largest micro-batch of everything that is trained.

        :param n_parts: ranks x accumulation.
        """

    @abstractmethod
    def drawn(self, index: int) -> str:
        """What an update trains on, such as ``tlm:en-fr``."""

    @abstractmethod
    def course(self, engine: Engine) -> Course:
        """What the trainer goes through.

        :raises XLMError: the engine cannot train it.
        """


def size(module: nn.Module) -> int:
    """Numbers that a module holds as parameters."""
    return sum(parameter.numel() for parameter in module.parameters())
