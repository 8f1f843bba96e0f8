"""Evaluation of a fine-tuned model: a task's own metrics, by part of its data.

Names: ``valid_fr_xnli_acc``, and the mean over a split's parts ``valid_xnli_acc``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from xlm_plugins.contracts.task import LabelledTexts, Task, TaskData, Values
from xlm_plugins.data.batches.examples import Examples
from xlm_plugins.inference.common import BATCH_TOKENS, batches_by_length
from xlm_plugins.model.classifier import Classifier
from xlm_plugins.model.model import Model
from xlm_plugins.training.engines.engine import Engine
from xlm_plugins.training.progress import OnProgress, no_progress

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TaskEvaluation:
    """Evaluates a model on a task's data, with the task's metrics.

    :param examples: the encoded rows of each part of ``data``.
    """

    task: Task
    data: TaskData
    examples: Sequence[Examples]
    classifier: Classifier

    def names(self, model: Model, split: str) -> list[str]:
        """The metrics that `evaluate` will return, known before anything is measured."""
        titles = [part.title for part in self.data.of(split) if part.labels is not None]
        labels = [f"{split}_{title}_{self.task.name}" for title in titles]
        labels += [f"{split}_{self.task.name}"] if titles else []
        return [f"{label}_{metric}" for label in labels for metric in self.task.metrics]

    def evaluate(
        self,
        engine: Engine,
        split: str,
        keep: Path | None = None,
        on_progress: OnProgress = no_progress,
    ) -> dict[str, float]:
        """All metrics of a split, equal on all ranks."""
        return self.metrics(split, self.predict(engine, split, on_progress))

    def predict(
        self, engine: Engine, split: str, on_progress: OnProgress = no_progress
    ) -> list[Values]:
        """The predicted class or value for each row of each part of a split."""
        found: list[Values] = []
        n_parts = len(self.data.of(split))
        for part, examples in zip(self.data.parts, self.examples, strict=True):
            if part.split == split:
                on_progress(f"{self.task.name}:{part.title}", len(found) / n_parts)
                scores = _scores(engine, self.classifier, examples)
                found.append(scores.argmax(axis=1) if self.data.classes else scores[:, 0])
        return found

    def metrics(self, split: str, predicted: Sequence[Values]) -> dict[str, float]:
        """The metrics of predictions.

        :param predicted: as `predict` returns them.
        """
        metrics: dict[str, float] = {}
        of_parts = []
        for (part, targets), values in zip(self.parts(split), predicted, strict=True):
            if targets is not None:
                of_parts.append(self.task.measure(targets, values))
                label = f"{split}_{part.title}_{self.task.name}"
                metrics |= {f"{label}_{name}": of_parts[-1][name] for name in self.task.metrics}
        for name in self.task.metrics if of_parts else ():
            mean = float(np.mean([measured[name] for measured in of_parts]))
            metrics[f"{split}_{self.task.name}_{name}"] = mean
        return metrics

    def parts(self, split: str) -> list[tuple[LabelledTexts, Values | None]]:
        """The parts of a split with their targets, if these are known."""
        both = zip(self.data.parts, self.data.targets, strict=True)
        return [(part, targets) for part, targets in both if part.split == split]


def _scores(engine: Engine, classifier: Classifier, examples: Examples) -> Scores:
    """The head's scores for each row, on every rank.  Shape: (n_rows, n_outputs)"""
    n_outputs = len(classifier.description.classes) or 1
    sums = torch.zeros(examples.n_rows, n_outputs)
    batches = list(batches_by_length(examples.tokens.lengths, BATCH_TOKENS))
    with engine.inference():
        # All ranks process the same number of batches: a sharded model's forward is collective.
        for first in range(0, len(batches), engine.world_size):
            engine.stop_if_asked()
            index = first + engine.rank
            rows = batches[min(index, len(batches) - 1)]
            scores = classifier.scores(engine.model, examples.batch(rows).to(engine.device))
            if index < len(batches):
                sums[rows] = scores.cpu()
    total: Scores = engine.sum(sums).numpy()
    return total
