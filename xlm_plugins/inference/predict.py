"""Classifying raw texts, or predicting a value for them, with a fine-tuned bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from xlm_plugins.contracts.batch import pack
from xlm_plugins.contracts.framing import encode_texts
from xlm_plugins.contracts.ragged import Ragged
from xlm_plugins.core.errors import BundleError, OptionError
from xlm_plugins.inference.common import (
    Advance,
    TextReader,
    batches_by_length,
    device_of,
    no_progress,
)
from xlm_plugins.model.bundle import Bundle


@dataclass(frozen=True)
class Prediction:
    """What the model predicts for one text, or for a pair.

    :param label: the most probable class, or the value as text.
    :param probabilities: of each class, in the classes' order; empty for a regression.
    """

    label: str
    probabilities: Mapping[str, float]


class Predictor(TextReader):
    """A fine-tuned bundle that classifies texts of one language, or predicts a value for them.

    :param language: of the texts; required if the model knows several.
    :raises BundleError: the model was not fine-tuned.
    :raises OptionError: an unknown language.
    """

    def __init__(self, bundle: Bundle, language: str | None = None) -> None:
        if bundle.classifier is None:
            raise BundleError(
                f"{bundle.path} was not fine-tuned on a task, so it cannot predict",
                remedy=f"xlm finetune TASK --from {bundle.path}",
            )
        super().__init__(bundle, language)
        self._classifier = bundle.classifier
        self.description = bundle.classifier.description

    @property
    def longest(self) -> int:
        """Number of tokens of a framed row that the model reads; longer texts are cut."""
        return self.description.max_length

    def encode_columns(self, columns: Sequence[Sequence[str]]) -> tuple[Ragged, int]:
        """Tokenize and frame the texts of each row, as `predict` takes them.

        :param columns: one for each text that the task compares.
        :returns: the rows, and how many of them were cut to `longest`.
        :raises OptionError: the wrong number of columns.
        """
        if len(columns) != self.description.n_texts:
            raise OptionError(
                f"{len(columns)} text(s) were given for each row",
                expected=f"{self.description.n_texts}, as in the task {self.description.task}",
            )
        return encode_texts(self._tokenizer, columns, self.longest)

    @torch.inference_mode()
    def predict(self, tokens: Ragged, advance: Advance = no_progress) -> list[Prediction]:
        """Predict the class, or the value, of each row."""
        n_outputs = len(self.description.classes) or 1
        scores = np.empty((tokens.n_rows, n_outputs), np.float32)
        for which in batches_by_length(tokens.lengths, self._batch_tokens):
            scores[which] = self._scores(tokens.take(which))
            advance(len(which))
        return [self._prediction(row) for row in scores]

    def _scores(self, tokens: Ragged) -> np.ndarray:
        begins, languages = tokens.offsets[:-1], tokens.filled(self._language)
        nothing = np.zeros(tokens.n_rows, np.int64)
        batch = pack(tokens, tokens.positions(), languages, begins, nothing, nothing)
        scores = self._classifier.scores(self._bundle.model, batch.to(device_of(self._bundle)))
        return np.asarray(scores.cpu())

    def _prediction(self, scores: np.ndarray) -> Prediction:
        classes = self.description.classes
        if not classes:
            return Prediction(f"{scores[0]:.4f}", {})
        probs = np.exp(scores - scores.max())
        probs /= probs.sum()
        of_classes = dict(zip(classes, probs.tolist(), strict=True))
        return Prediction(classes[int(scores.argmax())], of_classes)
