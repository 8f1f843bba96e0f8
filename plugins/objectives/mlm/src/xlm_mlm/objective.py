"""Masked language modelling: hide some tokens of a text and predict them from the others."""

from __future__ import annotations

import numpy as np

from xlm_plugins import (
    Batch,
    Layout,
    LossOutput,
    Model,
    Objective,
    Ragged,
    Samples,
    Step,
    choose_for_evaluation,
    choose_masked,
    pack,
)


class MaskedLanguageModelling(Objective):
    """MLM as in XLM (arXiv 1901.07291, section 3.3): on windows of running text.

    With the option ``layout`` it reads single sentences, framed like the sides of TLM: for shuffled
    text, or if little text must serve both objectives.

    Training draws new positions for every update, and shows some of them unchanged or as a random
    token; evaluation shows MASK at every position that it predicts.
    """

    name = "mlm"
    n_languages = (1,)
    predicts = "masked tokens"

    def layout(self, step: Step) -> Layout:
        return Layout(self.options.layout)

    def make_batch(self, samples: Samples, step: Step, rng: np.random.Generator) -> Batch:
        clean = self._rows(samples, step)
        shown, predicted = choose_masked(clean, self.options, self.vocabulary, rng)
        return self._packed(samples, step, clean, shown, predicted)

    def evaluation_batches(
        self, samples: Samples, step: Step, rng: np.random.Generator
    ) -> dict[str, Batch]:
        clean = self._rows(samples, step)
        shown, predicted = choose_for_evaluation(clean, self.vocabulary, rng)
        return {"": self._packed(samples, step, clean, shown, predicted)}

    def loss(self, model: Model, batch: Batch) -> LossOutput:
        return model.stack("encoder").predict(batch)

    def _rows(self, samples: Samples, step: Step) -> Ragged:
        """Windows unchanged; sentences in their frame."""
        (rows,) = samples.sides
        if self.layout(step) is Layout.STREAM:
            return rows
        return rows.framed(*self.vocabulary.frame)

    def _packed(
        self, samples: Samples, step: Step, clean: Ragged, shown: Ragged, predicted: np.ndarray
    ) -> Batch:
        language = self.languages[step.languages[0]]
        targets = clean.values[predicted]
        return pack(
            shown, clean.positions(), clean.filled(language), predicted, targets, samples.ids
        )
