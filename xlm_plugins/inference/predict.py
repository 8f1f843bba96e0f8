"""Predicting with a fine-tuned bundle: the class, or the value, of raw texts."""

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
    BATCH_TOKENS,
    Advance,
    batches_by_length,
    device_of,
    language_id,
    tokenizer_of,
    unwatched,
)
from xlm_plugins.model.bundle import Bundle


@dataclass(frozen=True)
class Prediction:
    """What is predicted of a text, or of two.

    :param label: the most probable class, or the value as text.
    :param probabilities: of each class, in the classes' order; empty for a regression.
    """

    label: str
    probabilities: Mapping[str, float]


class Predictor:
    """A fine-tuned bundle that judges texts of one language.

    :param language: of the texts; needed where the model knows several.
    :raises BundleError: the model was not fine-tuned.
    :raises OptionError: an unknown language.
    """

    def __init__(self, bundle: Bundle, language: str | None = None) -> None:
        if bundle.classifier is None:
            raise BundleError(
                f"{bundle.path} was not fine-tuned on a task, so it predicts nothing",
                remedy=f"xlm finetune TASK --from {bundle.path}",
            )
        self._bundle = bundle
        self._classifier = bundle.classifier
        self.description = bundle.classifier.description
        self._language = language_id(bundle, language)
        self._tokenizer = tokenizer_of(bundle, language)
        self.n_cut = 0

    @torch.inference_mode()
    def predict(
        self, columns: Sequence[Sequence[str]], advance: Advance = unwatched
    ) -> list[Prediction]:
        """Judge texts; ``n_cut`` counts those that were too long and lost their end.

        :param columns: as many as the task has texts: one, or two that are compared.
        :raises OptionError: another number of columns.
        """
        if len(columns) != self.description.n_texts:
            raise OptionError(
                f"{len(columns)} text(s) were given for each row",
                expected=f"{self.description.n_texts}, as in the task {self.description.task}",
            )
        longest = self.description.max_length
        tokens, n_cut = encode_texts(self._tokenizer, columns, longest)
        self.n_cut += n_cut
        n_outputs = len(self.description.classes) or 1
        scores = np.empty((tokens.n_rows, n_outputs), np.float32)
        for which in batches_by_length(tokens.lengths, BATCH_TOKENS):
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
        shares = np.exp(scores - scores.max())
        shares /= shares.sum()
        of_classes = dict(zip(classes, shares.tolist(), strict=True))
        return Prediction(classes[int(scores.argmax())], of_classes)
