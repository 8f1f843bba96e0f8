"""The head of a downstream task: a class or a value predicted from a row's representation.

The last layer's state at position 0, or the mean over tokens, then dropout and one linear layer
(docs/semantics.md, 8.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from xlm_plugins.config.model import ModelOptions
from xlm_plugins.contracts.batch import Batch, LossOutput
from xlm_plugins.contracts.layer import ParameterGroup
from xlm_plugins.contracts.objective import Trainable
from xlm_plugins.model.model import Model
from xlm_plugins.model.nn.pooling import mean_inside

HEAD = "head"


@dataclass(frozen=True)
class ClassifierDescription:
    """Everything that defines a classifier except its weights.

    :param task: the name of the task, and of the head.
    :param classes: in the order of their indices; empty for a regression.
    :param n_texts: texts per row: 1, or 2 that are compared.
    :param pool: ``first``, the state of position 0, or ``mean``, over all tokens except the first
        and the last.
    :param max_length: the most tokens of a framed row in training.
    """

    task: str
    classes: tuple[str, ...]
    n_texts: int
    pool: str
    max_length: int

    def to_json(self) -> dict[str, Any]:
        """The classifier's part of model.json."""
        return {**asdict(self), "classes": list(self.classes)}

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> ClassifierDescription:
        """Read what `to_json` wrote."""
        return cls(**{**tree, "classes": tuple(tree["classes"])})


class Head(nn.Module):
    """Dropout and a linear layer.

    :param lr: peak learning rate; the run's if None.
    """

    def __init__(self, dim: int, n_outputs: int, dropout: float, lr: float | None) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(dim, n_outputs)
        self._lr = lr

    def parameter_groups(self) -> list[ParameterGroup]:
        """The head's group, if it has its own learning rate."""
        return [] if self._lr is None else [ParameterGroup(tuple(self.parameters()), lr=self._lr)]

    def forward(self, x: Tensor) -> Tensor:
        """Shape: (n, dim) -> (n, n_outputs)"""
        scores: Tensor = self.linear(self.dropout(x))
        return scores


class Classifier(Trainable):
    """An encoder and a head, trained on labelled rows.

    A batch has one target per row, at the row's first token.

    :param class_weights: the loss weight of each class; 1 each if None.
    :param lr: the head's peak learning rate; the run's if None.
    """

    def __init__(
        self,
        description: ClassifierDescription,
        class_weights: Sequence[float] | None = None,
        lr: float | None = None,
    ) -> None:
        self.name = description.task
        self.description = description
        self._class_weights = class_weights
        self._lr = lr

    def modules(self, options: ModelOptions) -> dict[str, nn.Module]:
        n_outputs = len(self.description.classes) or 1
        return {HEAD: Head(options.dim, n_outputs, options.dropout, self._lr)}

    def scores(self, model: Model, batch: Batch) -> Tensor:
        """The class scores, or the value, of each row of the batch.

        :returns: shape (n_rows, n_classes), or (n_rows, 1) for a regression.
        """
        encoder = model.stack("encoder")
        if self.description.pool == "first":
            states = encoder(batch, at=batch.predicted)
        else:
            states = mean_inside(encoder(batch), batch.offsets)
        scores: Tensor = model.head(self.name, HEAD)(states)
        return scores.float()

    def loss(self, model: Model, batch: Batch) -> LossOutput:
        """Cross-entropy over classes, or the squared error of values."""
        scores = self.scores(model, batch)
        n_targets = torch.tensor(len(batch.targets), device=scores.device)
        if not self.description.classes:
            loss = functional.mse_loss(scores[:, 0], batch.targets, reduction="sum")
            return LossOutput(loss, n_targets, torch.zeros_like(n_targets))
        weights = scores.new_tensor(self._class_weights) if self._class_weights else None
        loss = functional.cross_entropy(scores, batch.targets, weights, reduction="sum")
        return LossOutput(loss, n_targets, (scores.argmax(-1) == batch.targets).sum())
